"""Settings of a run as a whole."""

import dataclasses

from star_keras.config.unused import refuse_unused
from star_keras.utils.settings import Settings, setting

# The highest seed of NumPy, which Keras seeds as well.
LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """The run as a whole."""

    seed: int = setting(
        0,
        "Seed of draws, orders and samples.",
        at_least=0,
        at_most=LARGEST_SEED,
        on_resume="fixed",
    )
    skip_eval: bool = setting(
        False, "Do not evaluate on held-out problems.", on_resume="fixed"
    )
    n_eval_samples: int | None = setting(
        None,
        "Held-out problems to evaluate on. Default: all.",
        at_least=1,
        on_resume="fixed",
    )
    on_empty: str = setting(
        "continue",
        "After an iteration without anything to train on, whose model is the base "
        "model: go on or stop.",
        choices=("continue", "stop"),
        on_resume="free",
    )
    keep_weights: int = setting(
        1, "Iterations whose weights stay on disk.", at_least=1, on_resume="free"
    )
    checkpoint_steps: int = setting(
        500,
        "Training steps between two checkpoints within an iteration. The last two "
        "checkpoints stay on disk.",
        at_least=1,
        on_resume="free",
    )

    def check(self):
        if self.skip_eval:
            remedy = "Leave one of them out."
            refuse_unused(self, ["n_eval_samples"], "with skip_eval=True", remedy)
