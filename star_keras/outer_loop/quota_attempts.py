"""Problems in, as many graded samples out as their quotas want, in one stream."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from star_keras.distribution import processes
from star_keras.outer_loop.graded_completions import check_completion, grade_completion
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.quotas import Outcome, Quota, Tally
from star_keras.outer_loop.requests import PhaseRequests, SampleOrder, sample_seed
from star_keras.sampling.sampler import Sampler, checked_batches
from star_keras.storage.records import GradedSample, SampleKind
from star_keras.storage.sample_store import SampleStore
from star_keras.tasks.task import Problem
from star_keras.utils.records import is_count

# Identifies a sample within a phase: the id of its problem, and its number.
Key = tuple[str, int]


class QuotaAttempts:
    """The samples of a phase whose number depends on themselves, see `quotas`.

    With a store, samples are journaled as they are graded. A phase that was
    interrupted goes on from its journal, with the samples of one that was not.
    Memory holds about 200 bytes for each sample on disk while the phase goes on.

    Args:
        prompts: Makes the prompts; its task grades.
        problems: All problems that the phase may sample, in canonical order.
        sampler: Samples the completions.
        quota: How many.
        kind: See `attempt`.
        iteration: See `attempt`.
        check_working: See `attempt`.
        store: See `attempt`.
        on_batch: See `attempt`. The number wanted is that of the samples that have
            started.

    Attributes:
        tallies: The `Tally` of each problem sampled so far, by its id.
        is_finished: Whether the store has all samples of the phase.
        num_tokens: Tokens sampled so far, those of dropped samples included.

    Raises:
        ValueError: if stored samples are not those of these problems.
    """

    def __init__(
        self,
        prompts: PromptBuilder,
        problems: Sequence[Problem],
        sampler: Sampler,
        quota: Quota,
        *,
        kind: SampleKind,
        iteration: int = 0,
        check_working: bool = False,
        store: SampleStore | None = None,
        on_batch: Callable[[Sequence[GradedSample], int, int], None] | None = None,
    ):
        self._prompts, self._problems = prompts, problems
        self._sampler, self._quota = sampler, quota
        self._kind, self._iteration = kind, iteration
        self._check_working = check_working
        self._store, self._on_batch = store, on_batch
        self.tallies: dict[str, Tally] = {}
        self._finished, self._found, self.num_tokens = None, {}, 0
        # Outcomes of samples on disk that have not been counted yet.
        self._known: dict[Key, Outcome] = {}
        if store is not None:
            self._finished = store.load(iteration, kind)
            # Beside a finished file it has the dropped samples too.
            journal = store.load_journal(iteration, kind)
            known = journal if self._finished is None else self._finished
            # No process writes before all have read.
            processes.sync(f"the samples of iteration {iteration} are read: {kind}")
            self._known = {(s.problem, s.sample): quota.outcome(s) for s in known}
            self.num_tokens = sum(s.num_tokens for s in journal or known)
        self._num_done = self._num_started = len(self._known)
        ids = {problem.id for problem in problems}
        self._check_no_others(key for key in self._known if key[0] not in ids)
        if on_batch is not None:
            on_batch([], self._num_done, self._num_done)

    @property
    def is_finished(self) -> bool:
        return self._finished is not None

    def finished_problems(self) -> set[str]:
        """Ids of the problems in the store's file of a finished phase."""
        return {problem for problem, _ in self._known} | self.tallies.keys()

    def sample(self, problems: Sequence[Problem]):
        """Sample problems until each has enough.

        Args:
            problems: Some of the problems, which have not been sampled before.

        Raises:
            ValueError: if a prompt leaves no room for a completion, or the sampler
                leaves out a sample, returns one twice, yields no lists of pairs, or
                returns no `Completion` with valid values.
            OSError: if the store cannot be written.
        """
        for problem in problems:
            self.tallies[problem.id] = Tally()
        queue: deque[tuple[int, int]] = deque()
        wanting = []
        for problem in problems:
            if numbers := self._start(problem):
                queue.extend((len(wanting), number) for number in numbers)
                wanting.append(problem)
        if not wanting:
            return
        in_flight: dict[int, tuple[int, int]] = {}
        positions = itertools.count()
        hint = self._kind == "rationalization"
        iteration = self._iteration

        def wanted(count):
            count = len(queue) if count is None else min(count, len(queue))
            taken = [queue.popleft() for _ in range(count)]
            in_flight.update((next(positions), pair) for pair in taken)
            return [
                (
                    index,
                    sample_seed(
                        wanting[index], hint=hint, iteration=iteration, number=number
                    ),
                )
                for index, number in taken
            ]

        requests = PhaseRequests(
            self._prompts,
            SampleOrder(wanting, 1),
            np.arange(len(wanting)),
            hint=hint,
            iteration=iteration,
        )
        sampler, stop = self._sampler, self._prompts.stop
        batches = sampler.sample_stream(requests, wanted, stop=stop)
        for batch in checked_batches(sampler, batches):
            samples = []
            for position, completion in batch:
                if not is_count(position) or position not in in_flight:
                    raise ValueError(
                        f"The sampler {self._sampler!r} returned request {position!r}, "
                        "which is not in flight. Expected each request once."
                    )
                check_completion(self._sampler, completion)
                index, number = in_flight.pop(position)
                sample = self._graded(wanting[index], number, completion)
                samples.append(sample)
                outcome = self._quota.outcome(sample)
                tally = self.tallies[sample.problem]
                self._quota.count(tally, number, outcome)
                further = self._start(wanting[index])
                queue.extend((index, number) for number in further)
            self._keep(samples)
        if in_flight or queue:
            left = [*in_flight.values(), *queue]
            raise ValueError(
                f"The sampler {self._sampler!r} left out {len(left)} requests, the "
                f"first of problem {wanting[left[0][0]].id!r}. It must complete each "
                "of them."
            )

    def finish(
        self, problems: Sequence[Problem], keep_journal: bool = False
    ) -> Sequence[GradedSample]:
        """End the phase.

        Args:
            problems: Sampled problems in canonical order. Samples of others are
                dropped.
            keep_journal: See `SampleStore.finish`.

        Returns:
            Their samples, problem by problem, each with its samples in order. With a
            store they are read from its file, see `StoredSamples`.

        Raises:
            ValueError: if stored samples are not those of these problems.
            OSError: if the store cannot be written.
        """
        store, iteration, kind = self._store, self._iteration, self._kind
        self._check_no_others(key for key in self._known if key[0] in self.tallies)
        order = [
            (problem.id, number)
            for problem in problems
            for number in range(self.tallies[problem.id].started)
        ]
        if store is None:
            return [self._found[key] for key in order]
        if self._finished is not None:
            keys = [(s.problem, s.sample) for s in self._finished]
            if keys != order:
                self._check_no_others(set(keys) - set(order) or keys)
            # A kill has perhaps left the journal.
            store.finish(iteration, kind, (), keep_journal)
            return self._finished
        if store.writes:
            journal = store.load_journal(iteration, kind)
            lines = {(s.problem, s.sample): i for i, s in enumerate(journal)}
            samples = journal.at([lines[key] for key in order])
            store.finish(iteration, kind, samples, keep_journal)
        processes.sync(f"the samples of iteration {iteration} are written: {kind}")
        return store.load(iteration, kind)

    def remove_journal(self):
        """Remove the journal that `finish` has kept."""
        self._store.finish(self._iteration, self._kind, ())

    def _start(self, problem):
        """Numbers of the samples of a problem that start now and are not on disk."""
        tally, missing = self.tallies[problem.id], []
        while count := self._quota.wanted(tally):
            for number in range(tally.started, tally.started + count):
                outcome = self._known.pop((problem.id, number), None)
                tally.started += 1
                if outcome is None:
                    missing.append(number)
                    self._num_started += 1
                else:
                    self._quota.count(tally, number, outcome)
        return missing

    def _graded(self, problem, number, completion):
        return grade_completion(
            self._prompts,
            problem,
            completion,
            kind=self._kind,
            iteration=self._iteration,
            number=number,
            check_working=self._check_working,
        )

    def _keep(self, samples):
        self.num_tokens += sum(sample.num_tokens for sample in samples)
        if self._store is None:
            self._found |= {(s.problem, s.sample): s for s in samples}
        else:
            self._store.append(self._iteration, self._kind, samples)
        self._num_done += len(samples)
        if self._on_batch is not None:
            self._on_batch(samples, self._num_done, self._num_started)

    def _check_no_others(self, keys: Iterable[Key]):
        """Check that there are no samples that a phase would not have made."""
        strange = next(iter(keys), None)
        if strange is not None:
            path = self._store.path(self._iteration, self._kind)
            raise ValueError(
                f"{path} or its journal does not hold the samples of this run, for "
                f"example sample {strange[1]} of problem {strange[0]!r}. Put the file "
                "back, or remove it to sample again."
            )
