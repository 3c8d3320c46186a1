"""Right rationales that are not trained on, since a verifier ranks them lowest."""

import math
from collections.abc import Sequence

from star_keras.config import StarConfig
from star_keras.distribution import processes
from star_keras.outer_loop.base_model import weights_checksum
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.selection import reject
from star_keras.outer_loop.verification import (
    check_verifier,
    verifier_prompts,
    verifier_scores,
)
from star_keras.sampling.sampler import Sampler
from star_keras.storage.records import GradedSample, Selection
from star_keras.storage.sample_store import SampleStore
from star_keras.storage.stored_samples import KeptSamples
from star_keras.tasks.task import Problem
from star_keras.utils.errors import invalid
from star_keras.utils.exact import exact


class LowestScored:
    """Drops the share `drop_lowest` of the kept rationales, those of the lowest scores.

    Args:
        verifier: A causal LM whose log-probabilities are the scores, or `None`.
        prompts: The prompts of the run.
        problems: Its training problems.
        sampler: Samples the rationales.
        store: Has the decisions of an interrupted run.
        config: All settings.
        paired: Whether the run trains on pairs.

    Raises:
        ValueError: if there is a verifier without `drop_lowest` or the reverse, the run
            trains on pairs, the verifier has no preprocessor, or the sampler's longest
            completion is too long for it.
    """

    def __init__(
        self,
        verifier,
        prompts: PromptBuilder,
        problems: Sequence[Problem],
        sampler: Sampler,
        store: SampleStore,
        config: StarConfig,
        *,
        paired: bool,
    ):
        _check(verifier, config.selection, paired)
        if verifier is not None:
            check_verifier(verifier, sampler)
        self._verifier, self._problems, self._store = verifier, problems, store
        self._prompts = verifier_prompts(prompts.task, prompts.chat)
        self._config = config.selection

    def checksum(self) -> int | None:
        """The check sum of the verifier's weights; `None` without one."""
        return None if self._verifier is None else weights_checksum(self._verifier)

    def drop(
        self,
        iteration: int,
        phases: Sequence[Sequence[GradedSample]],
        selections: Sequence[Selection],
    ) -> Sequence[Selection]:
        """The decisions on the samples of an iteration. No-op without a verifier.

        The number to drop is rounded down. Of equal scores the last ones are dropped
        first. Decisions on disk are read, so that a resumed run need not score again.

        Args:
            iteration: The iteration.
            phases: Its samples.
            selections: The decisions before. Dropped ones get the reason `"low_score"`.

        Raises:
            ValueError: if the decisions on disk are damaged, or a completion is longer
                than the verifier's longest sequence.
        """
        if self._verifier is None:
            return selections
        is_stored = self._store.finished.exists(iteration, "selection.jsonl")
        processes.sync(f"it is known whether iteration {iteration} was selected")
        if is_stored:
            return self._store.load_selection(iteration)[: len(selections)]
        kept = KeptSamples.of(phases, selections)
        samples = [sample for sample, _ in kept]
        scores = verifier_scores(self._verifier, self._prompts, self._problems, samples)
        count = math.floor(exact(self._config.drop_lowest) * len(samples))
        order = sorted(range(len(samples)), key=lambda i: (scores[i], -i))
        dropped = {samples[i].key for i in order[:count]}
        return reject(selections, dropped, "low_score", self._config)


def _check(verifier, selection, paired):
    share = selection.drop_lowest
    if paired and share:
        rule = "0 with objective='rpo', whose pairs need right rationales"
        raise invalid("drop_lowest", rule, share, "Leave it out.")
    selection.check_verifier(verifier)
    if verifier is not None and getattr(verifier, "preprocessor", None) is None:
        raise invalid("verifier", "a causal LM with a preprocessor", verifier)
