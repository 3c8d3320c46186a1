"""The threads of several workers, whose results come in a fixed order."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from star_keras.sampling.continuous_worker import ContinuousWorker


class WorkerThreads:
    """Workers that decode at the same time, each in a thread of its own.

    XLA computes the products of attention with the cache on one thread of a CPU. Two
    workers keep two cores busy. A single worker gets no thread.

    Args:
        workers: At least one `ContinuousWorker`.
    """

    def __init__(self, workers: Sequence[ContinuousWorker]):
        self.workers = list(workers)
        self._pool = ThreadPoolExecutor(len(workers)) if len(workers) > 1 else None
        # The order of the futures is that of their start.
        self._running: dict[ContinuousWorker, Future] = {}

    def step(self) -> list:
        """The result of the oldest step under way; all others go on meanwhile.

        The order of the results does not depend on the speed of the threads.

        Returns:
            What `ContinuousWorker.step` returns; empty if no worker has work.

        Raises:
            Exception: that of the worker's step.
        """
        if self._pool is None:
            return self.workers[0].step()
        for worker in self.workers:
            self._start(worker)
        if not self._running:
            return []
        worker = next(iter(self._running))
        ended = self._running.pop(worker).result()
        self._start(worker)
        return ended

    def _start(self, worker):
        if worker not in self._running and worker.has_work:
            self._running[worker] = self._pool.submit(worker.step)

    def shutdown(self):
        """Wait for the steps under way, and end the threads."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
