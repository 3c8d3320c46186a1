"""Speed of training."""

import time

import keras


class Throughput(keras.callbacks.Callback):
    """Puts `tokens_per_second` into an epoch's logs.

    Of tokens without padding, where the model logs its `real_token_share` (as
    `GPTJCausalLM` does); from the start of the second step on, since the first
    compiles. Put it before callbacks that read the epoch's logs.

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
        # All steps are done: the epoch's logs are values, not promises.
        steps = self._last + self.model.steps_per_execution - self._first
        tokens = steps * self.tokens_per_step * logs.get("real_token_share", 1.0)
        logs["tokens_per_second"] = tokens / (time.monotonic() - self._start)
