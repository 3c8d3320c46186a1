"""Weights go from the files of a checkpoint straight into the shards of a mesh."""

import math

import pytest

from tests.conftest import run_on_eight_devices

PROGRAM = """
import star_keras
import json
import pathlib
import sys
import tempfile
import jax
import keras
import numpy as np
from star_keras.distribution import model_parallel
from star_keras.models import (
    GPTJBackbone, GPTJCausalLM, load_mesh_transformer, save_hugging_face,
    save_mesh_transformer)

model = GPTJCausalLM(GPTJBackbone(
    vocabulary_size=64, num_layers=2, num_heads=4, hidden_dim=32,
    intermediate_dim=128, rotary_dim=4))
rng = np.random.default_rng(0)
for variable in model.weights:
    # Numbers that bfloat16 holds exactly.
    variable.assign(rng.integers(-8, 8, size=variable.shape) / 16)
tokens = rng.integers(0, 64, (4, 8), "int32")
inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
logits = model.predict(inputs, verbose=0)
directory = pathlib.Path(tempfile.mkdtemp())
save_hugging_face(model, directory / "hf", max_file_bytes=20_000)
save_mesh_transformer(model, directory / "mesh", shards=2)

keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
config = {
    "layers": 2, "d_model": 32, "n_heads": 4, "n_vocab": 64, "pe": "rotary",
    "pe_rotary_dims": 4, "norm": "layernorm", "seq": 2048}
found = {"devices": jax.device_count()}
for name, load in (
    ("hf", lambda: GPTJCausalLM.from_preset(directory / "hf")),
    ("mesh", lambda: load_mesh_transformer(
        GPTJCausalLM, directory / "mesh", config)),
):
    loaded = load()
    found[name] = {
        "logits": float(np.abs(loaded.predict(inputs, verbose=0) - logits).max()),
        "shards": {
            v.path.removeprefix(loaded.backbone.name + "/"): [
                list(v.shape), list(v.value.sharding.shard_shape(v.shape)),
                len({s.device for s in v.value.addressable_shards})]
            for v in loaded.weights
        },
    }
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def on_eight_devices():
    return run_on_eight_devices(PROGRAM)


@pytest.mark.parametrize("source", ["hf", "mesh"])
def test_loaded_weights_lie_in_the_shards_of_the_mesh(on_eight_devices, source):
    shards = on_eight_devices[source]["shards"]
    assert len(shards) == 25
    for path, (shape, shard, devices) in shards.items():
        assert devices == 8, path
        split = len(shape) > 1 or path.endswith(
            ("feedforward_intermediate_dense/bias", "lm_head/bias")
        )
        assert math.prod(shard) * (4 if split else 1) == math.prod(shape), path


@pytest.mark.parametrize("source", ["hf", "mesh"])
def test_loaded_over_a_mesh_gives_the_logits_of_one_device(on_eight_devices, source):
    assert on_eight_devices[source]["logits"] < 1e-5
