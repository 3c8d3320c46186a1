"""Meshes and layouts for `keras.distribution`. Knows nothing of STaR."""

from star_keras.distribution.layouts import gpt_j_layout_map
from star_keras.distribution.mesh import model_parallel, parse_mesh
from star_keras.distribution.planning import (
    from_shapes,
    lower_train_step,
    tpu_devices,
    variable_shapes,
)

__all__ = [
    "from_shapes",
    "gpt_j_layout_map",
    "lower_train_step",
    "model_parallel",
    "parse_mesh",
    "tpu_devices",
    "variable_shapes",
]
