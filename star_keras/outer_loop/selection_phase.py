"""The selection of an iteration: own samples, mastered ones, copies of earlier ones."""

import itertools
from collections.abc import Mapping

from star_keras.config import StarConfig
from star_keras.outer_loop.collapse import collapse_metrics
from star_keras.outer_loop.evaluation import unread_shares
from star_keras.outer_loop.lowest_scored import LowestScored
from star_keras.outer_loop.mastery import load_mastered
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.quotas import Quota
from star_keras.outer_loop.sampling_phases import Sampled
from star_keras.outer_loop.selection import load_copies, select, selection_metrics
from star_keras.outer_loop.training_set import reject_too_long
from star_keras.outer_loop.votes import Votes
from star_keras.storage.run_directory import RunDirectory
from star_keras.storage.stored_samples import KeptSamples
from star_keras.tasks.task import Problem
from star_keras.training.stored_examples import StoredExamples


class SelectionPhase:
    """Decides which samples an iteration is trained on, and records the phase.

    Args:
        problems: The training problems by their ids.
        prompts: Makes the training prompts.
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        run: The run directory; must be open when the phase runs.
        config: All settings.
        quota: How many samples a problem got.
        lowest: Drops rationales of low scores.
        paired: Whether to train on pairs, see `star_keras.outer_loop.pairs`.
    """

    def __init__(
        self,
        problems: Mapping[str, Problem],
        prompts: PromptBuilder,
        preprocessor,
        run: RunDirectory,
        config: StarConfig,
        quota: Quota,
        lowest: LowestScored,
        *,
        paired: bool,
    ):
        self._problems, self._prompts = problems, prompts
        self._preprocessor, self._run, self._config = preprocessor, run, config
        self._quota, self._lowest, self._paired = quota, lowest, paired

    def select(
        self, iteration: int, sampled: Sampled, mastered: Mapping[str, int]
    ) -> tuple[KeptSamples, StoredExamples | None]:
        """The samples that an iteration is trained on.

        Args:
            iteration: The iteration, from 1.
            sampled: Its samples.
            mastered: The problems that it has not sampled, see `draw_mastered`.

        Returns:
            The samples, and their examples if these are tokenized already.

        Raises:
            ValueError: if all samples are too long, or files of earlier iterations are
                missing or damaged.
            OSError: if a file cannot be written.
        """
        is_majority = self._config.selection.answers == "majority"
        votes = Votes(sampled.samples) if is_majority else None
        selections, examples = self._decide(iteration, sampled, votes)
        own = KeptSamples.of(sampled.phases, selections)
        old = load_mastered(self._run.samples, mastered)
        known = {selection.key for selection in old.selections}
        copied = load_copies(
            self._run.samples, iteration, self._config.selection.copy_n
        ).where(lambda selection: selection.key not in known)
        again = (old + copied).selections
        self._run.samples.finish_selection(
            iteration, itertools.chain(selections, again)
        )
        if not self._run.is_done(iteration, "select"):
            right = own.where(lambda selection: not selection.is_wrong)
            metrics = self._metrics(
                iteration,
                sampled,
                selections,
                own=right,
                old=old,
                num_mastered=len(mastered),
                votes=votes,
            )
            self._run.finish(iteration, "select", metrics)
        return own + old + copied, None if len(old + copied) else examples

    def _decide(self, iteration, sampled, votes):
        """The decisions on the iteration's own samples, and the examples if known."""
        selections = select(
            self._prompts.task,
            sampled.phases,
            self._config.selection,
            self._config.run.seed,
            self._quota,
            paired=self._paired,
            votes=votes,
        )
        decided, examples = reject_too_long(
            sampled.phases,
            selections,
            self._problems,
            self._prompts,
            self._preprocessor,
            self._config,
            paired=self._paired,
        )
        decided = self._lowest.drop(iteration, sampled.phases, decided)
        return decided, examples if decided is selections else None

    def _metrics(
        self, iteration, sampled, selections, *, own, old, num_mastered, votes
    ):
        """Metrics of the samples, the decisions on them, and the kept rationales."""
        num_problems = len(sampled.problems) + num_mastered
        kept = list((own + old).selections)
        task = self._prompts.task
        metrics = unread_shares(itertools.chain(*sampled.phases))
        metrics |= selection_metrics(kept, selections, num_problems)
        metrics |= collapse_metrics(
            self._run.samples,
            task,
            self._problems,
            own=own,
            hinted=sampled.hinted,
            iteration=iteration,
        )
        if votes is not None:
            metrics |= votes.metrics(task, self._problems)
        if self._config.sampling.mastered_after:
            metrics["share_mastered"] = num_mastered / num_problems
        return metrics
