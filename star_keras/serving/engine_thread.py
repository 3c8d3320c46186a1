"""A thread that decodes, and the requests that an event loop gives to it."""

import asyncio
import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Mapping, Sequence

import keras

from star_keras.sampling import (
    Completion,
    ContinuousSampler,
    RequestSettings,
    SampleRequest,
)


class Job:
    """Completions of one request, under way. Belongs to the event loop.

    An asynchronous iterator of pairs `(index, event)`: the arguments of
    `RequestSettings.on_tokens`, or the `Completion` that ends the index. It ends when
    all have ended.

    Raises:
        Exception: while iterating, if the engine has failed.
    """

    def __init__(self, thread: "EngineThread", indices: Mapping[int, int]):
        self._thread = thread
        self._indices = indices
        self._events: asyncio.Queue = asyncio.Queue()
        self._unfinished = set(indices)

    def put(self, request_id: int, event):
        """Add an event. Call in the event loop."""
        if isinstance(event, Completion):
            self._unfinished.discard(request_id)
        self._events.put_nowait((self._indices.get(request_id), event))

    def abort(self):
        """Cancel the completions that have not ended."""
        self._thread.abort(self._unfinished)
        self._unfinished = set()

    async def __aiter__(self):
        missing = len(self._indices)
        while missing:
            index, event = await self._events.get()
            if isinstance(event, BaseException):
                raise event
            missing -= isinstance(event, Completion)
            yield index, event


class EngineThread:
    """A `ContinuousEngine` in a thread of its own.

    Weights are those of the model at `start`. All methods belong to the event loop.

    Args:
        sampler: A `ContinuousSampler` that is greedy itself.
        distribution: The `keras.distribution` of the model, or `None`.

    Attributes:
        failure: The exception that ended the thread, or `None`.
    """

    def __init__(self, sampler: ContinuousSampler, distribution=None):
        self._sampler, self._distribution = sampler, distribution
        self._jobs: dict[int, Job] = {}
        self._ids = itertools.count()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.failure: BaseException | None = None

    async def start(self):
        """Make the engine.

        Raises:
            Exception: why it cannot be made.
        """
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        self._thread.start()
        await self._ready

    def submit(
        self,
        requests: Sequence[tuple[SampleRequest, RequestSettings]],
        *,
        stop: Sequence[str],
        report: bool = False,
    ) -> Job:
        """Let requests wait for slots.

        Args:
            requests: Requests, whose prompts are token ids, and their settings
                without `on_tokens`. Only those next to each other with the same
                settings are prefilled together.
            stop: Strings that end these completions.
            report: Whether the job has events of new tokens.

        Raises:
            ValueError: see `ContinuousEngine.add_requests`.
            RuntimeError: after `close`, or a failure.
        """
        if self.failure is not None:
            raise RuntimeError("The engine has failed.") from self.failure
        ids = [next(self._ids) for _ in requests]
        job = Job(self, {request_id: i for i, request_id in enumerate(ids)})
        # Before the requests: events may come at once.
        self._jobs |= dict.fromkeys(ids, job)
        added = zip(ids, requests, strict=True)
        try:
            for settings, group in itertools.groupby(added, lambda x: x[1][1]):
                if report:
                    settings = dataclasses.replace(
                        settings, on_tokens=self._post_tokens
                    )
                self._engine.add_requests(
                    {request_id: request for request_id, (request, _) in group},
                    stop=stop,
                    settings=settings,
                )
        except BaseException:
            job.abort()
            raise
        return job

    def abort(self, request_ids):
        """Cancel requests; those that have ended or are unknown do not matter."""
        for request_id in request_ids:
            self._jobs.pop(request_id, None)
            self._engine.abort_request(request_id)

    def abort_all(self):
        """Cancel all requests."""
        self.abort(list(self._jobs))

    def close(self):
        """Take no more requests. The thread ends with the last one."""
        self._engine.close()

    @property
    def is_alive(self) -> bool:
        """Whether it may still have requests."""
        return self._thread.is_alive()

    async def join(self):
        """Wait for the end of the thread."""
        await asyncio.to_thread(self._thread.join)

    # === In the thread, and from it to the event loop ===

    def _run(self):
        try:
            if self._distribution is not None:
                keras.distribution.set_distribution(self._distribution)
            with self._sampler.engine(
                settings_by_request=True, find_prefixes=True
            ) as engine:
                self._engine = engine
                self._call(self._ready.set_result, None)
                for batch in engine:
                    self._call(self._end, batch)
        except BaseException as error:
            self._call(self._fail, error)

    def _call(self, function, *arguments):
        # The loop may be closed: nobody waits for an answer then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _post_tokens(self, request_id, *new):
        self._call(self._put, request_id, new)

    def _put(self, request_id, event):
        if (job := self._jobs.get(request_id)) is not None:
            job.put(request_id, event)

    def _end(self, batch):
        for request_id, completion in batch:
            self._put(request_id, completion)
            self._jobs.pop(request_id, None)

    def _fail(self, error):
        self.failure = error
        if not self._ready.done():
            self._ready.set_exception(error)
        for job in set(self._jobs.values()):
            job.put(-1, error)
        self._jobs.clear()
