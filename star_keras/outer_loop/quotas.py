"""Quotas: how many samples a problem gets, decided by its own samples alone.

A problem gets its samples in the order of their numbers, 0, 1, 2 and so on. It gets
enough when it has `Quota.first` samples and as many distinct kept rationales as its
quota, or `Quota.most` samples. Of a problem with samples in flight, another one starts
only if it would be needed even if all of those were kept. So the samples of a problem
are always the fewest that are enough: which they are depends on no other problem, on no
sampler's timing, and not on when a run was interrupted.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable

from star_keras.config import SamplingConfig, SelectionConfig
from star_keras.outer_loop.votes import Votes
from star_keras.storage.records import GradedSample
from star_keras.tasks.equations import equation_fault
from star_keras.tasks.task import Task
from star_keras.tasks.task_calls import rationale_key


def sample_fault(
    sample: GradedSample, config: SelectionConfig, votes: Votes | None = None
) -> str:
    """Why a sample alone is not trained on: a reason of `Selection`, or nothing.

    Args:
        sample: The sample.
        config: Its `check_equations` decides.
        votes: Decide in place of the verdict.
    """
    if votes is not None:
        if fault := votes.fault(sample):
            return fault
    elif sample.verdict != "correct":
        return sample.verdict
    if config.check_equations and sample.kind != "direct":
        return equation_fault(sample.completion, sample.answer)
    return ""


@dataclasses.dataclass(kw_only=True, slots=True)
class Tally:
    """The samples of a problem in a phase, counted.

    Attributes:
        started: Samples that have started. They have the numbers before this one.
        ended: Those that have ended.
        correct: Those with the verdict `"correct"`.
        failed_first: Those of the first `Quota.first` that cannot be trained on.
        kept: The distinct rationales that can be trained on: of each key the lowest
            number of a sample and its tokens.
    """

    started: int = 0
    ended: int = 0
    correct: int = 0
    failed_first: int = 0
    kept: dict[bytes, tuple[int, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a `Tally` counts of a sample.

    Attributes:
        is_correct: Whether its verdict is `"correct"`.
        key: The same for equal rationales of a problem; `None` if it cannot be trained
            on.
        num_tokens: Its tokens.
    """

    is_correct: bool
    key: bytes | None
    num_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quota:
    """The rule of a phase.

    Attributes:
        first: Samples that every problem gets.
        most: Most samples of a problem.
        kept: Distinct kept rationales of a problem; `None`: the first samples alone.
        by_difficulty: Whether the quota is `kept` times the share of failures among
            the first samples, rounded up, and at least 1.
        outcome: Callable `GradedSample -> Outcome`.

    Reference:
        [DART-Math](https://arxiv.org/abs/2407.13690): `by_difficulty=False` is its
        Uniform, `True` its Prop2Diff.
    """

    first: int
    most: int
    kept: int | None
    by_difficulty: bool
    outcome: Callable[[GradedSample], Outcome]

    def target(self, tally: Tally) -> int | None:
        """Distinct rationales that are enough; `None` for no quota.

        Args:
            tally: That of the problem, which has its first samples.
        """
        if self.kept is None or not self.by_difficulty:
            return self.kept
        return max(1, math.ceil(self.kept * tally.failed_first / self.first))

    def wanted(self, tally: Tally) -> int:
        """How many samples of a problem are to start now."""
        if tally.started < self.first:
            return self.first - tally.started
        in_flight = tally.started - tally.ended
        if self.kept is None or (self.by_difficulty and tally.ended < self.first):
            return 0
        missing = self.target(tally) - len(tally.kept) - in_flight
        return max(0, min(missing, self.most - tally.started))

    def count(self, tally: Tally, number: int, outcome: Outcome):
        """Count a sample that has ended.

        Args:
            tally: That of its problem. Changed in place.
            number: Number of the sample.
            outcome: Its outcome.
        """
        tally.ended += 1
        tally.correct += outcome.is_correct
        if outcome.key is None:
            tally.failed_first += number < self.first
        else:
            new = number, outcome.num_tokens
            tally.kept[outcome.key] = min(new, tally.kept.get(outcome.key, new))

    def targets(self, samples: Iterable[GradedSample]) -> dict[str, int]:
        """The quota of each problem that has samples; empty for no quota.

        Args:
            samples: All samples of a phase.
        """
        if self.kept is None:
            return {}
        tallies: dict[str, Tally] = {}
        for sample in samples:
            tally = tallies.setdefault(sample.problem, Tally())
            if sample.sample < self.first:
                self.count(tally, sample.sample, self.outcome(sample))
        return {problem: self.target(tally) for problem, tally in tallies.items()}


def make_quota(
    task: Task, sampling: SamplingConfig, selection: SelectionConfig
) -> Quota:
    """The `Quota` of a configuration.

    Args:
        task: Tells equal rationales apart (`Task.rationale_key`).
        sampling: Numbers of samples and of rationales.
        selection: Decides which rationales can be kept.
    """

    is_distinct = sampling.kept_per_problem is not None or selection.drop_duplicates

    def outcome(sample):
        key = None
        if not sample_fault(sample, selection):
            text = rationale_key(task, sample.problem, sample.completion)
            text = text if is_distinct else f"{sample.sample} {text}"
            key = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return Outcome(
            is_correct=sample.verdict == "correct",
            key=key,
            num_tokens=sample.num_tokens,
        )

    return Quota(
        first=sampling.samples_per_problem,
        most=sampling.max_samples_per_problem,
        kept=sampling.kept_per_problem,
        by_difficulty=sampling.quota == "difficulty",
        outcome=outcome,
    )
