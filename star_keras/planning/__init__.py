"""Plans of a run on absent TPUs: memory, and estimates of time."""

from star_keras.planning.abstract_models import (
    device_bytes,
    from_shapes,
    lower_train_step,
)
from star_keras.planning.chips import CHIPS, GPUS, Chip, tpu_devices
from star_keras.planning.plan import ProgramPlan, plan

__all__ = [
    "CHIPS",
    "Chip",
    "GPUS",
    "ProgramPlan",
    "device_bytes",
    "from_shapes",
    "lower_train_step",
    "plan",
    "tpu_devices",
]
