"""Learning-rate schedules with a warm-up."""

import math

import keras
from keras import ops

DECAYS = ("constant", "linear", "cosine")


@keras.saving.register_keras_serializable(package="star_keras")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises in a line from zero, stays, and may fall in a line or a cosine.

    Args:
        learning_rate: float. The rate after the warm-up.
        warmup_steps: int. Updates until then. Defaults to `0`.
        decay: `"constant"`, `"linear"` or `"cosine"`. Defaults to
            `"constant"`.
        decay_steps: int. Updates that the fall takes. Defaults to `0`, which
            only `"constant"` can do with.
        hold_steps: int. Updates between the warm-up and the fall. Defaults to
            `0`.
        final_share: float. The last rate, as a share of `learning_rate`.
            Defaults to `0.1`.

    Raises:
        ValueError: if an argument is invalid.

    Example:
    ```python
    schedule = WarmupSchedule(1e-3, 10, decay="linear", decay_steps=100)
    [float(schedule(n)) for n in (0, 5, 10, 60, 110, 999)]
    # [0, 5e-4, 1e-3, 5.5e-4, 1e-4, 1e-4]
    ```
    """

    def __init__(
        self,
        learning_rate,
        warmup_steps=0,
        decay="constant",
        decay_steps=0,
        hold_steps=0,
        final_share=0.1,
    ):
        super().__init__()
        if decay not in DECAYS:
            raise ValueError(
                f"Invalid value for argument `decay`. Expected one of {DECAYS}. "
                f"Received: decay={decay!r}."
            )
        if (decay == "constant") != (decay_steps == 0) or decay_steps < 0:
            raise ValueError(
                "Invalid value for argument `decay_steps`. Expected 0 with the decay "
                "'constant', and at least 1 with another. Received: "
                f"decay_steps={decay_steps!r} with decay={decay!r}."
            )
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.decay_steps = decay_steps
        self.hold_steps = hold_steps
        self.final_share = final_share

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = self.learning_rate
        share = 1.0
        if self.decay != "constant":
            fall = step - self.warmup_steps - self.hold_steps
            done = ops.clip(fall / self.decay_steps, 0.0, 1.0)
            left = 1 - done
            if self.decay == "cosine":
                left = (1 + ops.cos(math.pi * done)) / 2
            share = self.final_share + (1 - self.final_share) * left
        if self.warmup_steps:
            share = share * ops.minimum(step / self.warmup_steps, 1.0)
        return ops.cast(rate * share, "float32")

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay": self.decay,
            "decay_steps": self.decay_steps,
            "hold_steps": self.hold_steps,
            "final_share": self.final_share,
        }
