"""All settings of the outer loop."""

import dataclasses

from star_keras.config.run import RunConfig
from star_keras.config.sampling import SamplingConfig
from star_keras.config.selection import SelectionConfig
from star_keras.config.training import TrainingConfig
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, group


@dataclasses.dataclass(frozen=True, kw_only=True)
class StarConfig(Settings):
    """Everything that `StarIterationCallback` can be told.

    Example:
    ```python
    config = StarConfig(
        sampling=SamplingConfig(few_shot=False, max_new_tokens=112),
        training=TrainingConfig(batch_size=16, sequence_length=128),
    )
    ```
    """

    sampling: SamplingConfig = group(SamplingConfig)
    selection: SelectionConfig = group(SelectionConfig)
    training: TrainingConfig = group(TrainingConfig)
    run: RunConfig = group(RunConfig)

    def check(self):
        if self.sampling.sample_until_trained and self.training.schedule == "epochs":
            rule = (
                "exponential or steady with sample_until_trained=True: the number of "
            )
            rule += "steps decides what is sampled"
            raise invalid("schedule", rule, "epochs")
        first = self.sampling.first_classes
        if first is not None and self.run.skip_eval:
            rule = "`None` with skip_eval=True: the held-out accuracy decides"
            raise invalid("first_classes", rule, first, "Leave one of them out.")
        if self.selection.answers == "majority":
            self._check_majority()
        share = self.selection.drop_lowest
        for name, why in (
            ("direct", "whose known answers are not ranked"),
            ("sample_until_trained", "which counts all kept rationales"),
            ("mastered_after", "which trains on the rationales of earlier iterations"),
        ):
            if share and (value := getattr(self.sampling, name)):
                rule = f"0 with {name}={value}, {why}"
                raise invalid("drop_lowest", rule, share, "Leave one of them out.")

    def _check_majority(self):
        """Check that nothing needs an answer before the vote."""
        samples = self.sampling.samples_per_problem
        if samples < 2:
            rule = "at least 2 with answers='majority', which is their vote"
            raise invalid("samples_per_problem", rule, samples)
        for settings, name, expected, why in (
            (self.sampling, "rationalize", False, "hints show answers"),
            (self.sampling, "direct", False, "it trains on known answers"),
            (self.sampling, "kept_per_problem", None, "all samples of a problem vote"),
            (self.sampling, "sample_until_trained", False, "it counts right answers"),
            (self.sampling, "mastered_after", 0, "it counts right answers"),
            (self.selection, "check_working", False, "steps need the true answer"),
            (self.selection, "drop_lowest", 0.0, "verifiers learn from known answers"),
        ):
            if (value := getattr(settings, name)) != expected:
                rule = f"{expected} with answers='majority': {why}"
                raise invalid(name, rule, value, f"Set {name}={expected}.")
        if self.sampling.order == "adaptive":
            rule = "given or shuffled with answers='majority': it counts right answers"
            raise invalid("order", rule, "adaptive", "Leave one of them out.")
