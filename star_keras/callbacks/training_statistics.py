"""Speed of training, and averages over an epoch of what each step logs."""

import math
import time

import keras


class TrainingStatistics(keras.callbacks.Callback):
    """Logs an epoch's speed, gradient norm and gradient noise scale.

    The epoch's logs get `tokens_per_second` (without padding, from the start of
    the second step on, since the first compiles), and the averages over its
    steps of `gradient_norm` and `real_token_share`. Where
    `GPTJCausalLM.compile` was told to accumulate gradients they also get
    `gradient_noise_scale`: the number of trained tokens a batch at which half of
    the gradient's square is noise. Far smaller batches waste steps, far larger
    ones tokens.

    Put it before callbacks that read the epoch's logs. Logs of steps are read
    while the next steps run already.

    Args:
        tokens_per_step: int. Tokens of a batch, padding included.

    Reference:
        [An Empirical Model of Large-Batch Training](https://arxiv.org/abs/1812.06162),
        appendix A.1: both estimates are averaged before they are divided.
    """

    # Another thread may bring what steps log, in any order.
    async_safe = True

    def __init__(self, tokens_per_step):
        super().__init__()
        self.tokens_per_step = tokens_per_step

    def on_epoch_begin(self, epoch, logs=None):
        self._steps = {}
        self._start = None

    def on_train_batch_begin(self, batch, logs=None):
        if batch and self._start is None:
            self._start, self._first = time.monotonic(), batch

    def on_train_batch_end(self, batch, logs=None):
        self._steps[batch] = dict(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        end = time.monotonic()
        if logs is None:
            return
        for name in ("gradient_norm", "real_token_share"):
            if name in logs:
                logs[name] = self._mean(name)
        if self._start is not None:
            tokens = self.tokens_per_step * sum(
                step.get("real_token_share", 1.0)
                for batch, step in self._steps.items()
                if batch >= self._first
            )
            logs["tokens_per_second"] = tokens / (end - self._start)
        if "gradient_signal" in logs:
            signal, noise = self._mean("gradient_signal"), self._mean("gradient_noise")
            del logs["gradient_signal"], logs["gradient_noise"]
            # Few steps can estimate a square as negative.
            logs["gradient_noise_scale"] = noise / signal if signal > 0 else math.nan

    def _mean(self, name):
        values = [step[name] for step in self._steps.values() if name in step]
        return sum(values) / len(values)
