"""Checkpoints are read straight into the shards of a mesh."""

import math

import pytest

from tests.conftest import run_on_eight_devices


@pytest.fixture(scope="module")
def on_eight_devices():
    return run_on_eight_devices("models_loading_on_a_mesh")


@pytest.mark.parametrize("source", ["hugging_face", "mesh_transformer"])
def test_loaded_weights_lie_in_the_shards_of_the_mesh(on_eight_devices, source):
    shards = on_eight_devices[source]["shards"]
    assert len(shards) == 15
    for path, (shape, shard, devices) in shards.items():
        assert devices == 8, path
        split = len(shape) > 1 or path.endswith(
            ("feedforward_intermediate_dense/bias", "lm_head/bias")
        )
        assert math.prod(shard) * (4 if split else 1) == math.prod(shape), path


@pytest.mark.parametrize("source", ["hugging_face", "mesh_transformer"])
def test_loaded_over_a_mesh_gives_the_logits_of_one_device(on_eight_devices, source):
    assert on_eight_devices[source]["logits"] < 1e-5
