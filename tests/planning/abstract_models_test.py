import gc

import jax
import keras
import pytest

from star_keras import planning
from star_keras.distribution import variable_shapes
from star_keras.models import GPTJBackbone, GPTJCausalLM
from tests.conftest import run_on_eight_devices


def test_a_model_made_from_shapes_takes_no_memory():
    gc.collect()  # else arrays of other tests may go meanwhile
    before = sum(x.nbytes for x in jax.live_arrays())
    model = planning.from_shapes(
        lambda: GPTJCausalLM(GPTJBackbone.gpt_j_6b(), compile=False)
    )
    assert model.count_params() == 6_050_882_784
    shapes = variable_shapes(model.variables)
    assert planning.device_bytes(shapes) == 4 * 6_050_882_784
    assert sum(x.nbytes for x in jax.live_arrays()) == before


def test_bytes_of_a_device_are_those_of_its_shards():
    mesh = keras.distribution.DeviceMesh(
        (2, 4), ["batch", "model"], [jax.devices()[0]] * 8
    )
    spec = jax.sharding.PartitionSpec
    sharding = jax.sharding.AbstractMesh(mesh.shape, tuple(mesh.axis_names))

    def shape(*axes):
        return jax.ShapeDtypeStruct(
            (8, 16), "bfloat16", sharding=jax.NamedSharding(sharding, spec(*axes))
        )

    assert planning.device_bytes([shape()]) == 256
    assert planning.device_bytes([shape(None, "model")]) == 64
    assert planning.device_bytes([shape("batch", "model"), shape()]) == 32 + 256


@pytest.mark.slow
def test_the_lowered_step_is_the_step_of_fit():
    found = run_on_eight_devices("planning_lowered_step")
    first, second = found["losses"]
    assert first > 1
    assert abs(first - second) < 1e-6
    assert found["difference"] < 1e-6
    assert found["same_layouts"]
