"""The outer loop as a callback, its step schedules, and small siblings."""

from star_keras.callbacks.star_iteration_callback import StarIterationCallback
from star_keras.callbacks.step_schedules import (
    EpochSteps,
    ExponentialSteps,
    SteadySteps,
)
from star_keras.callbacks.throughput import Throughput
from star_keras.callbacks.token_inputs import feed_token_ids

__all__ = [
    "EpochSteps",
    "ExponentialSteps",
    "StarIterationCallback",
    "SteadySteps",
    "Throughput",
    "feed_token_ids",
]
