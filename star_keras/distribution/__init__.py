"""Meshes and layouts for `keras.distribution`. Knows nothing of STaR."""

from star_keras.distribution.initialize import initialize
from star_keras.distribution.layouts import REPLICATED, causal_lm_layout_map
from star_keras.distribution.mesh import parse_mesh
from star_keras.distribution.model_parallel import CausalLMParallel, model_parallel
from star_keras.distribution.planning import (
    ProgramPlan,
    device_bytes,
    from_shapes,
    lower_train_step,
    plan,
    tpu_devices,
    variable_shapes,
)

__all__ = [
    "REPLICATED",
    "CausalLMParallel",
    "ProgramPlan",
    "causal_lm_layout_map",
    "device_bytes",
    "from_shapes",
    "lower_train_step",
    "initialize",
    "model_parallel",
    "parse_mesh",
    "plan",
    "tpu_devices",
    "variable_shapes",
]
