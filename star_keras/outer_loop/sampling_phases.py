"""The first phases of an iteration: sample, then sample failed problems with a hint."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from star_keras.config import StarConfig
from star_keras.outer_loop.attempts import attempt
from star_keras.outer_loop.evaluation import accuracy_metrics
from star_keras.outer_loop.filled_rows import FilledRows
from star_keras.outer_loop.problems import draw_failed, draw_stream
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.quota_attempts import QuotaAttempts
from star_keras.outer_loop.quotas import make_quota
from star_keras.outer_loop.sources import RationaleSource
from star_keras.storage.records import GradedSample, SampleKind
from star_keras.storage.run_directory import RunDirectory
from star_keras.tasks.task import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled:
    """What the phases have sampled.

    Attributes:
        problems: The problems, in the order in which they were taken.
        samples: Their samples without a hint, in canonical order.
        hinted: Samples of the failed ones with a hint, in canonical order.
    """

    problems: Sequence[Problem]
    samples: Sequence[GradedSample]
    hinted: Sequence[GradedSample] = ()

    @property
    def phases(self) -> tuple[Sequence[GradedSample], Sequence[GradedSample]]:
        """The samples without a hint, and those with one."""
        return self.samples, self.hinted


class SamplingPhases:
    """Samples the problems of an iteration, and records both phases.

    Args:
        prompts: Makes the prompts of samples.
        source: Where the rationales come from.
        problems: All training problems.
        run: The run directory; must be open when a phase runs.
        config: All settings.
        rows: Counts rows, for `sample_until_trained`.
        bar: Callable `(iteration, phase) -> context` with the `on_batch` of `attempt`.

    Attributes:
        hints: Whether failed problems are sampled again with a hint.
        quota: How many samples a problem gets, see `star_keras.outer_loop.quotas`.
    """

    def __init__(
        self,
        prompts: PromptBuilder,
        source: RationaleSource,
        problems: Sequence[Problem],
        run: RunDirectory,
        config: StarConfig,
        rows: FilledRows,
        bar: Callable,
    ):
        self._prompts, self._source, self._problems = prompts, source, problems
        self._run, self._config, self._rows, self._bar = run, config, rows, bar
        self.hints = config.sampling.rationalize and source.kind != "direct"
        self.quota = make_quota(prompts.task, config.sampling, config.selection)
        # Failed problems are the most difficult.
        self._hinted_quota = dataclasses.replace(self.quota, by_difficulty=False)

    def sample(self, iteration: int, problems: Sequence[Problem]) -> Sampled:
        """Sample problems, all of them or until the kept rationales are enough.

        Args:
            iteration: The iteration, from 1.
            problems: The problems in their order.

        Raises:
            ValueError: see `attempt`.
            OSError: if a file cannot be written.
        """
        if self._config.sampling.sample_until_trained:
            return self._until_trained(iteration, problems)
        samples = self._attempt(iteration, "sample", self._source.kind, problems)
        self._record(iteration, "sample", samples)
        hinted = ()
        if self.hints:
            failed = draw_failed(problems, samples, *self._retries(iteration))
            kind = "rationalization"
            hinted = self._attempt(iteration, "rationalize", kind, failed)
            self._record(iteration, "rationalize", hinted)
        return Sampled(problems=problems, samples=samples, hinted=hinted)

    def _attempt(self, iteration, phase, kind, problems):
        with self._bar(iteration, phase) as on_batch:
            if self.quota.kept is not None:
                attempts = self._attempts(iteration, kind, problems, on_batch)
                attempts.sample(problems)
                return attempts.finish(problems)
            return attempt(
                self._prompts,
                problems,
                self._source.sampler,
                kind=kind,
                iteration=iteration,
                num_samples=self._source.num_samples,
                check_working=self._source.check_working,
                store=self._run.samples,
                on_batch=on_batch,
            )

    def _attempts(self, iteration, kind: SampleKind, problems, on_batch):
        return QuotaAttempts(
            self._prompts,
            problems,
            self._source.sampler,
            self._hinted_quota if kind == "rationalization" else self.quota,
            kind=kind,
            iteration=iteration,
            check_working=self._source.check_working,
            store=self._run.samples,
            on_batch=on_batch,
        )

    def _until_trained(self, iteration, problems):
        """Take problems until their kept rationales fill the rows of the training.

        They are taken in blocks. The surplus of the last block is dropped; the result
        is the same as with one problem at a time.
        """
        with self._bar(iteration, "sample") as on_batch:
            counts = _JointCounts(on_batch)
            phases = [self._attempts(iteration, "rationale", problems, counts.add)]
            retried = set()
            if self.hints:
                kind = "rationalization"
                phases.append(self._attempts(iteration, kind, problems, counts.add))
                drawn = draw_failed(problems, (), *self._retries(iteration))
                retried = {problem.id for problem in drawn}
            wanted = self._rows.wanted(iteration)
            if phases[0].is_finished:  # these problems were enough
                known = phases[0].finished_problems()
                problems, wanted = [p for p in problems if p.id in known], math.inf
            taken, rows = 0, 0.0
            while rows < wanted and taken < len(problems):
                block = problems[taken : taken + self._block(taken, rows, wanted)]
                for filled in self._fill(block, phases, retried):
                    taken, rows = taken + 1, rows + filled
                    if rows >= wanted:
                        break
            problems = problems[:taken]
            samples = self._finish(iteration, "sample", phases[0], problems)
        hinted = ()
        if self.hints:
            failed = [p for p in problems if p.id in phases[1].tallies]
            hinted = self._finish(iteration, "rationalize", phases[1], failed)
        return Sampled(problems=problems, samples=samples, hinted=hinted)

    def _finish(self, iteration, phase, attempts, problems):
        """Record a phase of `_until_trained`; its samples."""
        samples = attempts.finish(problems, keep_journal=True)
        metrics = {"num_problems": len(problems)} if phase == "sample" else {}
        self._record(iteration, phase, samples, attempts.num_tokens, **metrics)
        # Until now it held the number of tokens of the dropped samples.
        attempts.remove_journal()
        return samples

    def _block(self, taken, rows, wanted):
        """How many problems to take at once: enough, at the rate so far."""
        if wanted == math.inf:
            return len(self._problems)
        each = rows / taken if rows else 1.0
        least = self._config.sampling.sample_batch_size
        return max(least, math.ceil((wanted - rows) / each))

    def _fill(self, block, phases, retried):
        """Sample problems; the rows that each of them fills."""
        phases[0].sample(block)
        for phase in phases[1:]:
            tallies = phases[0].tallies
            phase.sample(
                [p for p in block if p.id in retried and not tallies[p.id].correct]
            )
        quotas = self.quota, self._hinted_quota
        tallies = [
            [
                (quota, phase.tallies[problem.id])
                for quota, phase in zip(quotas, phases, strict=False)
                if problem.id in phase.tallies
            ]
            for problem in block
        ]
        return self._rows.filled(block, tallies)

    def _retries(self, iteration):
        """Share of the failed problems to sample again, and the stream that draws."""
        draw = draw_stream(self._config.run.seed, iteration, "failed")
        return self._config.sampling.p_rationalization, draw

    def _record(self, iteration, phase, samples, num_tokens=None, **metrics):
        """Record a finished phase with the accuracy and the tokens of its samples."""
        if self._run.is_done(iteration, phase):
            return
        if num_tokens is None:
            num_tokens = sum(sample.num_tokens for sample in samples)
        name = "sampled_tokens" if phase == "sample" else "hinted_tokens"
        metrics[name] = num_tokens
        if self._source.kind != "direct":
            prefix = "train_" if phase == "sample" else "rationalization_"
            metrics |= accuracy_metrics(self._prompts, self._problems, samples, prefix)
        self._run.finish(iteration, phase, metrics)


class _JointCounts:
    """Shows two phases under way as one.

    Args:
        on_batch: See `attempt`.
    """

    def __init__(self, on_batch):
        self._on_batch = on_batch
        self._done = 0

    def add(self, batch, done, total):
        """Count a batch of either phase."""
        self._done += len(batch) if batch else done
        self._on_batch(batch, self._done, self._done)
