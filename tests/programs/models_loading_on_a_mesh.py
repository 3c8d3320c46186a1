"""Logits and shards of a model, loaded from two formats over a mesh."""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import pathlib
import sys
import tempfile

import jax
import keras
import numpy as np

from star_keras.distribution import model_parallel
from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    load_mesh_transformer,
    save_hugging_face,
    save_mesh_transformer,
)

CONFIG = {
    "layers": 1,
    "d_model": 32,
    "n_heads": 4,
    "n_vocab": 64,
    "pe": "rotary",
    "pe_rotary_dims": 4,
    "norm": "layernorm",
    "seq": 2048,
}

model = GPTJCausalLM(
    GPTJBackbone(
        vocabulary_size=64,
        num_layers=1,
        num_heads=4,
        hidden_dim=32,
        intermediate_dim=128,
        rotary_dim=4,
    )
)
rng = np.random.default_rng(0)
for variable in model.weights:
    # Numbers without a rounding error in bfloat16.
    variable.assign(rng.integers(-8, 8, size=variable.shape) / 16)
tokens = rng.integers(0, 64, (4, 8), "int32")
inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
logits = model.predict(inputs, verbose=0)
directory = pathlib.Path(tempfile.mkdtemp())
save_hugging_face(model, directory / "hugging_face", max_file_bytes=20_000)
save_mesh_transformer(model, directory / "mesh_transformer", shards=2)

keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
models = {
    "hugging_face": GPTJCausalLM.from_preset(directory / "hugging_face"),
    "mesh_transformer": load_mesh_transformer(directory / "mesh_transformer", CONFIG),
}
found = {"devices": jax.device_count()}
for name, loaded in models.items():
    shards = {
        v.path.removeprefix(loaded.backbone.name + "/"): [
            list(v.shape),
            list(v.value.sharding.shard_shape(v.shape)),
            len({s.device for s in v.value.addressable_shards}),
        ]
        for v in loaded.weights
    }
    difference = np.abs(loaded.predict(inputs, verbose=0) - logits).max()
    found[name] = {"logits": float(difference), "shards": shards}
json.dump(found, sys.stdout)
