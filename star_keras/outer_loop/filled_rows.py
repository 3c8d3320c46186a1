"""How far the kept rationales of problems fill the rows of an iteration's training."""

from collections.abc import Sequence

from star_keras.config import StarConfig
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.quotas import Quota, Tally
from star_keras.outer_loop.step_schedules import scheduled_steps
from star_keras.tasks.task import Problem
from star_keras.training.examples import tokenize_prompts


class FilledRows:
    """Counts rows: a rationale fills one, or with packing its share of the tokens.

    Counted are the tokens of the training prompt without a hint, and those sampled.

    Args:
        prompts: Makes the training prompts.
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        config: All settings.
        packed: Whether a row holds several examples.
    """

    def __init__(
        self, prompts: PromptBuilder, preprocessor, config: StarConfig, *, packed: bool
    ):
        self._prompts, self._preprocessor = prompts, preprocessor
        self._config, self._packed = config, packed

    def wanted(self, iteration: int) -> int:
        """Rows of the training steps of an iteration."""
        training = self._config.training
        return scheduled_steps(training, iteration, 0) * training.batch_size

    def filled(
        self, problems: Sequence[Problem], tallies: Sequence[tuple[Quota, Tally]]
    ) -> list[float]:
        """The rows that the rationales of each problem fill.

        Args:
            problems: The problems.
            tallies: For each problem a list of the tallies of its phases, each with
                the quota of the phase.
        """
        tokens = [
            [count for quota, tally in phases for count in self._kept(quota, tally)]
            for phases in tallies
        ]
        if not self._packed:
            return [float(len(counts)) for counts in tokens]
        length = self._config.training.sequence_length
        filled = [0.0] * len(problems)
        kept = [i for i, counts in enumerate(tokens) if counts]
        prompts = tokenize_prompts(
            self._preprocessor,
            [self._prompts.build(problems[i], False) for i in kept],
            add_start_token=self._prompts.chat is None,
        )
        for i, prompt in zip(kept, prompts, strict=True):
            filled[i] = sum(len(prompt) + count for count in tokens[i]) / length
        return filled

    def _kept(self, quota, tally):
        """Tokens of the rationales that are trained on: those of the lowest numbers."""
        cap = self._config.selection.max_rationales_per_problem
        limits = [limit for limit in (cap, quota.target(tally)) if limit is not None]
        kept = sorted(tally.kept.values())
        return [tokens for _, tokens in kept[: min(limits, default=None)]]
