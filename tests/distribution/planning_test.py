import json
import subprocess
import sys

import jax
import keras
import pytest

from star_keras import distribution
from star_keras.models import GPTJBackbone, GPTJCausalLM
from tests.conftest import ROOT, run_on_eight_devices


def test_a_model_made_from_shapes_takes_no_memory():
    before = sum(x.nbytes for x in jax.live_arrays())
    model = distribution.from_shapes(
        lambda: GPTJCausalLM(GPTJBackbone.gpt_j_6b(), compile=False)
    )
    assert model.count_params() == 6_050_882_784
    shapes = distribution.variable_shapes(model.variables)
    assert distribution.device_bytes(shapes) == 4 * 6_050_882_784
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

    assert distribution.device_bytes([shape()]) == 256
    assert distribution.device_bytes([shape(None, "model")]) == 64
    assert distribution.device_bytes([shape("batch", "model"), shape()]) == 32 + 256


def test_topologies_need_libtpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(ImportError, match=r"pip install .*tpu-plan"):
        distribution.tpu_devices("v3-8")


PROGRAM = """
import star_keras
import json
import sys
import jax
import keras
import numpy as np
from star_keras import distribution
from star_keras.models import GPTJBackbone, GPTJCausalLM

keras.distribution.set_distribution(distribution.model_parallel("batch:2,model:4"))

def make():
    keras.utils.set_random_seed(0)
    model = GPTJCausalLM(GPTJBackbone(
        vocabulary_size=64, num_layers=1, num_heads=4, hidden_dim=32,
        intermediate_dim=64, rotary_dim=4), compile=False)
    model.compile(optimizer=keras.optimizers.Adam(1e-2, name="adam"))
    model.optimizer.build(model.trainable_variables)
    return model

rng = np.random.default_rng(0)
tokens = rng.integers(0, 64, (4, 8), "int32")
data = (
    {
        "token_ids": tokens,
        "padding_mask": np.ones_like(tokens),
        "segment_ids": np.ones_like(tokens),
        "positions": np.arange(8, dtype="int32")[None].repeat(4, 0),
    },
    rng.integers(0, 64, (4, 8), "int32"),
    rng.integers(0, 2, (4, 8)).astype("float32"),
)

model = make()
step = distribution.lower_train_step(model, 4, 8).compile()
state = tuple([v.value for v in variables] for variables in (
    model.trainable_variables, model.non_trainable_variables,
    model.optimizer.variables, model.metrics_variables))
rows = keras.distribution.distribution().get_data_layout((4, 8)).backend_layout
logs, state = step(state, jax.device_put(data, rows))

model = make()
inputs, labels, weights = data
history = model.fit(
    inputs, labels, sample_weight=weights, batch_size=4, shuffle=False, verbose=0)
json.dump({
    "devices": jax.device_count(),
    "losses": [float(logs["loss"]), history.history["loss"][0]],
    "weights": max(
        float(np.abs(np.asarray(a) - np.asarray(b.value)).max())
        for a, b in zip(state[0], model.trainable_variables, strict=True)),
    "same_layouts": all(
        a.sharding.is_equivalent_to(b.value.sharding, a.ndim)
        for a, b in zip(
            state[0] + state[2],
            model.trainable_variables + model.optimizer.variables, strict=True)),
}, sys.stdout)
"""


@pytest.mark.slow
def test_the_lowered_step_is_the_step_of_fit():
    found = run_on_eight_devices(PROGRAM)
    first, second = found["losses"]
    assert first > 1
    assert abs(first - second) < 1e-6
    assert found["weights"] < 1e-6
    assert found["same_layouts"]


TPU_PROGRAM = """
import json
import sys
import star_keras
import jax
from star_keras import distribution

def plan(topology, rows):
    devices = distribution.tpu_devices(topology)
    x = jax.ShapeDtypeStruct(
        (rows, 4096), "bfloat16",
        sharding=jax.sharding.SingleDeviceSharding(devices[0]))
    w = jax.ShapeDtypeStruct((4096, 4096), "bfloat16", sharding=x.sharding)
    lowered = jax.jit(lambda x, w: x @ w).lower(x, w)
    plan = distribution.plan(lowered, devices[0])
    return {
        "devices": len(devices),
        "kind": devices[0].device_kind,
        "fits": plan.fits,
        "memory": plan.memory,
        "of_peak": 2 * rows * 4096**2 * plan.chip.clock
        / max(plan.cost.cycles, 1) / plan.chip.flops,
    }

found = {name: plan(name, 2**13) for name in sys.argv[1].split(",")}
found["too_large"] = plan("v5e-8", 2**22)
try:
    distribution.tpu_devices("v3-7")
except ValueError as error:
    found["error"] = str(error)
found["jax"] = [d.platform for d in jax.devices()]
json.dump(found, sys.stdout)
"""
TOPOLOGIES = {
    "v3-8": (8, "TPU v3"),
    "v4-32": (16, "TPU v4"),
    "v5e-64": (64, "TPU v5 lite"),
    "v6e:2x4": (8, "TPU v6 lite"),
}


@pytest.fixture(scope="module")
def on_tpus():
    """What the program above finds; libtpu stays out of this process."""
    pytest.importorskip("libtpu")
    done = subprocess.run(
        [sys.executable, "-c", TPU_PROGRAM, ",".join(TOPOLOGIES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_matrix_product_is_estimated_near_the_peak(on_tpus, name):
    """Else the chip's clock or peak would be wrong."""
    found = on_tpus[name]
    assert (found["devices"], found["kind"]) == TOPOLOGIES[name]
    assert found["fits"]
    assert 0.8 < found["of_peak"] < 1
    assert found["memory"]["arguments"] == 2 * 4096 * (2**13 + 4096)


@pytest.mark.slow
def test_a_program_that_is_too_large_does_not_fit(on_tpus):
    found = on_tpus["too_large"]
    assert not found["fits"]
    # Rows in and out.
    assert found["memory"]["total"] > 2 * 2**22 * 4096 * 2


@pytest.mark.slow
def test_an_unknown_topology_is_refused(on_tpus):
    assert "topology='v3-7'" in on_tpus["error"]
    assert "v5e:2x4" in on_tpus["error"]


@pytest.mark.slow
def test_compiling_for_tpus_leaves_the_devices_of_jax_alone(on_tpus):
    assert on_tpus["jax"] == ["cpu"]
