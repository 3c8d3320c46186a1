"""All settings of a run, each said once.

Imports no Keras, so that scripts check their flags at once.
"""

from star_keras.config.run import RunConfig
from star_keras.config.sampling import SAMPLER_SETTINGS, SamplingConfig
from star_keras.config.selection import SelectionConfig
from star_keras.config.serving import ServingConfig
from star_keras.config.settings_page import reference
from star_keras.config.star import StarConfig
from star_keras.config.training import LR_SCHEDULES, OptimizerConfig, TrainingConfig

__all__ = [
    "LR_SCHEDULES",
    "OptimizerConfig",
    "RunConfig",
    "SAMPLER_SETTINGS",
    "SamplingConfig",
    "SelectionConfig",
    "ServingConfig",
    "StarConfig",
    "TrainingConfig",
    "reference",
]
