"""Learning-rate schedules with a warm-up."""

import math

import keras
from keras import ops

from star_keras.config import LR_SCHEDULES, OptimizerConfig
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked_setting


@keras.saving.register_keras_serializable(package="star_keras")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up from zero, then a constant rate or a decay.

    Args:
        learning_rate: float. The rate after the warm-up.
        warmup_steps: int. Steps of the warm-up. Defaults to `0`.
        decay: string. `"constant"`, `"linear"` or `"cosine"`. Defaults to
            `"constant"`.
        decay_steps: int. Steps of the decay: 0 with `"constant"`, at least 1
            otherwise. Defaults to `0`.
        hold_steps: int. Steps between the warm-up and the decay. Defaults to `0`.
        final_share: float. The rate after the decay, as a share of
            `learning_rate`. Defaults to `0.1`.

    Call arguments:
        step: int scalar. Number of earlier steps.

    Returns:
        The learning rate, a float32 scalar.

    Raises:
        ValueError: if `decay` is unknown, a number is out of bounds or not finite, or
            `decay_steps` does not match `decay`.

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
        if decay not in LR_SCHEDULES:
            raise invalid("decay", f"one of {LR_SCHEDULES}", decay)
        if (decay == "constant") != (decay_steps == 0):
            rule = "0" if decay == "constant" else "at least 1"
            raise invalid("decay_steps", f"{rule} with decay={decay!r}", decay_steps)
        self.learning_rate = checked_setting(
            OptimizerConfig, "learning_rate", learning_rate
        )
        self.warmup_steps = checked_setting(
            OptimizerConfig, "warmup_steps", warmup_steps
        )
        self.decay = decay
        self.decay_steps = checked_setting(OptimizerConfig, "decay_steps", decay_steps)
        self.hold_steps = checked_setting(OptimizerConfig, "hold_steps", hold_steps)
        if not 0 <= final_share <= 1:
            raise invalid("final_share", "a share from 0 to 1", final_share)
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
