"""Stopwatches of an iteration: around a sampler, a function and `fit`.

Imports Keras: call `load_libraries` before the import of this module.
"""

import functools
import time

import star_keras  # noqa: F401  isort: skip  (selects the backend)
import keras

from star_keras.sampling import Sampler


class TimedSampler(Sampler):
    """Passes requests on to a sampler.

    Args:
        sampler: The other sampler.

    Attributes:
        seconds: Time in the sampler.
        grading_seconds: Time between two batches: the user of the sampler grades
            and stores the samples.
        num_tokens: Tokens sampled.
    """

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.reset()

    def reset(self):
        self.seconds = self.grading_seconds = 0.0
        self.num_tokens = 0

    def get_config(self):
        return self.sampler.get_config()

    def sample(self, requests, *, stop=()):
        batches = self.sampler.sample(requests, stop=stop)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            end = time.perf_counter()
            self.seconds += end - start
            if batch is None:
                return
            self.num_tokens += sum(completion.num_tokens for _, completion in batch)
            yield batch
            self.grading_seconds += time.perf_counter() - end


class Stopwatch(keras.callbacks.Callback):
    """Times the first epoch of a `fit`. Stands after all other callbacks.

    Args:
        on_start: Called at the start of the epoch.

    Attributes:
        seconds: Time of the epoch, including the hooks of the other callbacks.
        logs: Metrics of the epoch, a dict.
    """

    def __init__(self, on_start=lambda: None):
        super().__init__()
        self._on_start = on_start

    def on_train_begin(self, logs=None):
        self._on_start()
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self._start
        self.logs = dict(logs)


class TimedFunction:
    """A function with the sum of its `seconds`."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self._function = function
        self.seconds = 0.0

    def __call__(self, *args, **kwargs):
        start = time.perf_counter()
        try:
            return self._function(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - start
