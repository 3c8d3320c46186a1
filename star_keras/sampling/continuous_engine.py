"""The engine of `ContinuousSampler`: requests in at any time, completions out."""

import array
import itertools
import threading
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from star_keras.sampling.continuous_worker import ContinuousWorker
from star_keras.sampling.request_settings import RequestSettings
from star_keras.sampling.sampler import Completion, SampleRequest
from star_keras.sampling.sampling_methods import request_key
from star_keras.sampling.scheduler import PartialSample
from star_keras.sampling.tokenized_requests import TokenizedRequests
from star_keras.sampling.worker_threads import WorkerThreads
from star_keras.utils.errors import invalid
from star_keras.utils.texts import check_stop

if TYPE_CHECKING:
    from star_keras.sampling.continuous_sampler import ContinuousSampler


class ContinuousEngine:
    """Samples requests that arrive while others are in flight.

    Any thread may call `add_request`, `add_requests`, `add_samples`, `abort_request`
    and `close` at any time. One thread iterates, or calls `step`; under a
    `keras.distribution` the thread that set it. A completion depends on its request and
    the sampler's seed alone, not on its arrival, other requests or cancellations.

    A worker starts its requests in the order of their arrival, the longest first of
    those that arrive together. Of two workers, a request goes at its arrival to the
    one with fewer unfinished requests, and stays there. Weights are those of the model
    when the engine is made. Several processes must make the same calls in the same
    order, `step` included.

    Args:
        sampler: A `ContinuousSampler`. Its settings and compiled functions are used.
        variables: List of arrays. Values of the variables of the model.
        prefix_ids: Token ids that all prompts begin with, computed once.
        settings_by_request: See `ContinuousSampler.engine`.
        find_prefixes: See `ContinuousSampler.engine`.

    Raises:
        ValueError: see `ContinuousSampler.engine`.

    Example:
    ```python
    sampler = ContinuousSampler(model, max_new_tokens=16)
    with sampler.engine() as engine:
        engine.add_request("sum", SampleRequest(prompt="Q: 1 + 1?\\nA:", name="sum"))
        engine.add_request("unwanted", SampleRequest(prompt="Q: Why?", name="why"))
        engine.abort_request("unwanted")  # True
        engine.close()
        for batch in engine:
            for request_id, completion in batch:
                print(request_id, completion.text)
    ```
    """

    def __init__(
        self,
        sampler: "ContinuousSampler",
        variables,
        prefix_ids: Sequence[int] = (),
        *,
        settings_by_request: bool = False,
        find_prefixes: bool = False,
    ):
        self._sampler = sampler
        self._settings_by_request = settings_by_request
        self._prefix_ids = sampler.checked_ids("prefix_ids", prefix_ids)
        prefix = sampler.steps.shared_prefix(variables, self._prefix_ids)
        self._threads = WorkerThreads(
            [
                ContinuousWorker(
                    sampler, variables, prefix, settings_by_request, find_prefixes
                )
                for _ in range(sampler.num_workers)
            ]
        )
        self._unfinished: dict[Hashable, tuple[ContinuousWorker, PartialSample]] = {}
        self._changed = threading.Condition()
        self._num_fed = 0  # requests of `feed` that are unfinished
        self._closed = self._ended = False

    def add_request(
        self,
        request_id: Hashable,
        request: SampleRequest,
        *,
        stop: Sequence[str] = (),
        settings: RequestSettings | None = None,
    ):
        """Let a request wait for a slot, see `add_requests`."""
        self.add_requests({request_id: request}, stop=stop, settings=settings)

    def add_requests(
        self,
        requests: Mapping[Hashable, SampleRequest],
        *,
        stop: Sequence[str] = (),
        settings: RequestSettings | None = None,
    ):
        """Let requests wait for slots, behind all others of their worker.

        Equal prompts are prefilled together. The `prefix` of a request is ignored.

        Args:
            requests: Requests by their ids. An id is free again when its completion
                has come or the request was aborted.
            stop: Strings that end these completions.
            settings: Settings of these requests, for an engine with
                `settings_by_request`. Defaults to greedy completions of the sampler's
                `max_new_tokens` there, and to the sampler's settings elsewhere.

        Raises:
            ValueError: if an id is in use; a prompt is neither a text nor token ids,
                is empty, leaves no room for the completion, or is not longer than
                `prefix_ids` and begins with them; `stop` is no sequence of texts
                that are not empty; or there are `settings` that the engine does not
                take, or with more tokens than the sampler's. No request is added then.
            RuntimeError: after `close`.
        """
        check_stop(stop)
        if settings is not None:
            self._check(settings)
        if not requests:
            return
        sampler, settings = self._sampler, settings or RequestSettings()
        prompts = sampler.tokenize_prompts(
            list(requests.values()), settings.max_new_tokens
        )
        samples = []
        for (request_id, request), ids in zip(requests.items(), prompts, strict=True):
            start = len(self._prefix_ids)
            if ids[:start] != self._prefix_ids or len(ids) == start:
                raise invalid(
                    "requests",
                    f"prompts that go on after the {start} token ids of the engine's "
                    f"prefix; that of {request.name!r} does not",
                    ids[: start + 1],
                    "Leave out `prefix_ids` where prompts begin differently.",
                )
            sample = PartialSample(
                request_id=request_id,
                prompt_ids=ids[start:],
                key_data=request_key(sampler.seed, request.seed),
                stop=tuple(stop),
                log_probs=[] if request.log_probs else None,
                top_log_probs=(
                    [] if request.log_probs and settings.top_log_probs else None
                ),
                settings=settings,
            )
            samples.append(sample)
        self.add_samples(samples)

    def add_samples(self, samples: Sequence[PartialSample]):
        """Let samples wait for slots, see `add_requests`; nothing is tokenized.

        Args:
            samples: New samples. Their prompts are the token ids behind `prefix_ids`
                and leave room for the completion.

        Raises:
            ValueError: if an id is in use. No sample is added then.
            RuntimeError: after `close`.
        """
        samples = sorted(samples, key=lambda x: (-len(x.prompt_ids), x.prompt_ids))
        with self._changed:
            if self._closed:
                raise RuntimeError("The engine is closed. Expected no more requests.")
            if used := {x.request_id for x in samples} & self._unfinished.keys():
                raise invalid(
                    "requests", "ids that are not in use", sorted(used, key=repr)
                )
            for _, equal in itertools.groupby(samples, key=lambda x: x.prompt_ids):
                while several := list(itertools.islice(equal, self._sampler.slots)):
                    worker = min(self._threads.workers, key=len)
                    worker.scheduler.add(several)
                    self._unfinished |= {x.request_id: (worker, x) for x in several}
            self._changed.notify_all()

    def _check(self, settings):
        if not self._settings_by_request:
            rule = "`None` in an engine without `settings_by_request`"
            raise invalid("settings", rule, settings)
        most = self._sampler.max_new_tokens
        if (settings.max_new_tokens or 1) > most:
            rule = f"at most {most}, the `max_new_tokens` of the sampler"
            raise invalid("max_new_tokens", rule, settings.max_new_tokens)

    def feed(self, requests: TokenizedRequests, *, stop: Sequence[str] = ()):
        """Let tokenized requests wait, and close the engine.

        The id of a request is its index. The tokens of a request become a list shortly
        before its turn, to save memory. These requests cannot be cancelled.

        Args:
            requests: Requests with the engine's prefix.
            stop: Strings that end these completions.

        Raises:
            RuntimeError: after another request, or after `close`.
        """
        if self._closed or self._unfinished:
            raise RuntimeError("The engine has had requests. Expected a new engine.")
        workers = self._threads.workers
        queues = [array.array("q") for _ in workers]
        for equal in requests.groups():
            for start in range(0, len(equal), self._sampler.slots):
                queue = min(queues, key=len)
                queue.extend(equal[start : start + self._sampler.slots])
        with self._changed:
            self._num_fed = len(requests)
            for worker, indices in zip(workers, queues, strict=True):
                worker.scheduler.feed(requests.samples(indices, tuple(stop)))
            self._closed = True
            self._changed.notify_all()

    def abort_request(self, request_id: Hashable) -> bool:
        """Cancel a request, waiting or in flight.

        Its slot is free after the decode chunk under way. No other completion changes.

        Returns:
            Whether it was unfinished. If so, it gets no completion.
        """
        with self._changed:
            worker, sample = self._unfinished.get(request_id, (None, None))
            if sample is None or not worker.scheduler.abort(sample):
                return False
            del self._unfinished[request_id]
            return True

    def has_unfinished_requests(self) -> bool:
        """Whether completions are still to come."""
        return self.num_unfinished > 0

    @property
    def num_unfinished(self) -> int:
        """Number of requests whose completions are still to come."""
        return len(self._unfinished) + self._num_fed

    def step(self) -> list[tuple[Hashable, Completion]]:
        """Decode a chunk of up to 16 tokens for all slots of a worker.

        Returns:
            Pairs `(request_id, completion)` of requests that have ended; often none.

        Raises:
            RuntimeError: after an earlier failure, or after the `with` block.
        """
        if self._ended:
            raise RuntimeError("The engine has ended. Expected a new engine.")
        try:
            completions = self._threads.step()
        except BaseException:
            # Caches may have been given away, and tokens are lost.
            self._closed = self._ended = True
            raise
        with self._changed:
            if self._num_fed:
                self._num_fed -= len(completions)
            else:
                for request_id, _ in completions:
                    del self._unfinished[request_id]
        return completions

    def __iter__(self) -> Iterator[list[tuple[Hashable, Completion]]]:
        """Completions as they end; waits for requests until `close`.

        Yields:
            Lists of pairs `(request_id, completion)`, in any order.
        """
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self.has_unfinished_requests() or self._closed
                )
                if not self.has_unfinished_requests():
                    return
            if completions := self.step():
                yield completions

    def close(self):
        """Take no more requests. Iteration ends with the last one in flight."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Drop all requests in flight, and end the threads."""
        self.close()
        self._ended = True
        self._threads.shutdown()
