"""Speed of training."""

import time

import keras


class Throughput(keras.callbacks.Callback):
    """Puts `tokens_per_second` into an epoch's logs.

    Padding is not counted if the model logs `token_utilization`, as
    `PackedCausalLM` does. The clock starts with the second step, since the first
    step compiles. Put this callback before callbacks that read the epoch's logs.

    Args:
        tokens_per_step: int. Tokens of a batch, padding included.
    """

    def __init__(self, tokens_per_step):
        super().__init__()
        self.tokens_per_step = tokens_per_step

    def on_epoch_begin(self, epoch, logs=None):
        self._start = None

    def on_train_batch_begin(self, batch, logs=None):
        if batch and self._start is None:
            self._start, self._first = time.monotonic(), batch
        self._last = batch

    def on_epoch_end(self, epoch, logs=None):
        if logs is None or self._start is None:
            return
        # The logs are values, so all steps are done.
        steps = self._last + self.model.steps_per_execution - self._first
        tokens = steps * self.tokens_per_step * logs.get("token_utilization", 1.0)
        logs["tokens_per_second"] = tokens / (time.monotonic() - self._start)
