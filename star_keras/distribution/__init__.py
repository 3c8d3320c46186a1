"""Meshes and layouts for `keras.distribution`. Knows nothing of STaR."""

from star_keras.distribution.current_mesh import (
    CurrentMesh,
    current_mesh,
    first_device,
    split_rows,
)
from star_keras.distribution.initialize import initialize
from star_keras.distribution.layouts import REPLICATED, causal_lm_layout_map
from star_keras.distribution.mesh import parse_mesh, row_parts
from star_keras.distribution.model_parallel import CausalLMParallel, model_parallel
from star_keras.distribution.shapes import variable_shapes

__all__ = [
    "REPLICATED",
    "CausalLMParallel",
    "CurrentMesh",
    "causal_lm_layout_map",
    "current_mesh",
    "first_device",
    "initialize",
    "model_parallel",
    "parse_mesh",
    "row_parts",
    "split_rows",
    "variable_shapes",
]
