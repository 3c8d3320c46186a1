"""Meshes and layouts for `keras.distribution`. Knows nothing of STaR."""

from star_keras.distribution.layouts import gpt_j_layout_map
from star_keras.distribution.mesh import model_parallel, parse_mesh

__all__ = ["gpt_j_layout_map", "model_parallel", "parse_mesh"]
