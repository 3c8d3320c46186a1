import re

import jax
import keras
import pytest

from star_keras.distribution import gpt_j_layout_map
from star_keras.models import GPTJBackbone, GPTJCausalLM
from tests.conftest import run_on_eight_devices

# Every variable of a GPT-J and of its optimizer is in one of the two lists.
# In an optimizer slot's name `/` is `_`, and its own name comes last.
SPLIT = {
    "token_embedding.embeddings": ["model", None],
    r"transformer_layer_\d+.self_attention.(query|key|value).kernel": [
        None,
        "model",
        None,
    ],
    r"transformer_layer_\d+.self_attention.attention_output.kernel": [
        "model",
        None,
        None,
    ],
    r"transformer_layer_\d+.feedforward_intermediate_dense.kernel": [None, "model"],
    r"transformer_layer_\d+.feedforward_intermediate_dense.bias": ["model"],
    r"transformer_layer_\d+.feedforward_output_dense.kernel": ["model", None],
    "lm_head.kernel": [None, "model"],
    "lm_head.bias": ["model"],
}
REPLICATED = (
    r"(transformer_layer_\d+.)?layer_norm.(gamma|beta)",
    r"transformer_layer_\d+.feedforward_output_dense.bias",
    "iteration",
    "learning_rate",
)


def expected_axes(path):
    """Mesh axes of a variable; none of a replicated one."""
    name = re.sub("^adam/", "", path)
    name = re.sub("_(momentum|velocity)$", "", name)
    found = [axes for pattern, axes in SPLIT.items() if re.fullmatch(pattern, name)]
    found += [[] for pattern in REPLICATED if re.fullmatch(pattern, name)]
    (axes,) = found
    return axes


@pytest.fixture(scope="module")
def shapes_of_gpt_j_6b():
    """Shapes by path, of weights and optimizer slots that are never made."""
    shapes = {}

    def trace():
        model = GPTJCausalLM(GPTJBackbone.gpt_j_6b(), compile=False)
        optimizer = keras.optimizers.Adam(name="adam")
        optimizer.build(model.trainable_variables)
        variables = model.variables + optimizer.variables
        shapes.update({v.path: tuple(v.shape) for v in variables})
        return [variable.value for variable in variables]

    jax.eval_shape(trace)
    return shapes


def test_every_variable_of_gpt_j_6b_is_split_or_meant_to_be_replicated(
    shapes_of_gpt_j_6b,
):
    mesh = keras.distribution.DeviceMesh(
        (1, 8), ["batch", "model"], [f"cpu:{i}" for i in range(8)]
    )
    layout_map = gpt_j_layout_map(mesh)
    assert len(shapes_of_gpt_j_6b) == 3 * 285 + 2
    replicated = 0
    for path, shape in shapes_of_gpt_j_6b.items():
        layout = layout_map[path]
        axes = [] if layout is None else list(layout.axes)
        assert axes == expected_axes(path), path
        if axes:
            assert len(axes) == len(shape)
            assert shape[axes.index("model")] % 8 == 0, path
        else:
            assert len(shape) <= 1, path  # nothing large
            replicated += 1
    assert replicated == 3 * (28 * 3 + 2) + 2


def test_name_of_the_model_axis_is_free():
    mesh = keras.distribution.DeviceMesh(
        (2, 4), ["data", "heads"], [f"cpu:{i}" for i in range(8)]
    )
    layout_map = gpt_j_layout_map(mesh, model_axis="heads")
    assert layout_map["lm_head/kernel"].axes == (None, "heads")
    assert layout_map["lm_head/kernel"].device_mesh is mesh


PROGRAM = """
import star_keras
import json
import sys
import jax
import keras
import numpy as np
from star_keras.distribution import model_parallel
from star_keras.models import GPTJBackbone, GPTJCausalLM

def make():
    keras.utils.set_random_seed(0)
    model = GPTJCausalLM(GPTJBackbone(
        vocabulary_size=64, num_layers=1, num_heads=4, hidden_dim=32,
        intermediate_dim=64, rotary_dim=4))
    optimizer = keras.optimizers.Adam(1e-3, name="adam")
    model.compile(optimizer=optimizer, sampler="greedy", weighted_metrics=[])
    optimizer.build(model.trainable_variables)
    return model

rng = np.random.default_rng(0)
tokens = rng.integers(0, 64, (4, 8), "int32")
inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
labels = rng.integers(0, 64, (4, 8), "int32")
prompts = {**inputs, "padding_mask": (np.arange(8) < 5)[None].repeat(4, 0)}

def results(model):
    logits = model.predict(inputs, batch_size=4, verbose=0)
    generated = model.generate(dict(prompts), stop_token_ids=None)["token_ids"]
    loss = model.fit(
        inputs, labels, batch_size=4, shuffle=False, verbose=0).history["loss"]
    weights = [np.asarray(w) for w in model.get_weights()]
    return logits, generated, loss, weights

logits, generated, loss, weights = results(make())
keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
model = make()

def shardings():
    return {
        v.path: {
            "axes": list(v.value.sharding.spec),
            "shape": list(v.shape),
            "shard": list(v.value.sharding.shard_shape(v.shape)),
            "devices": len(v.value.sharding.device_set),
        }
        for v in model.variables + model.optimizer.variables
    }

before = shardings()
split_logits, split_generated, split_loss, split_weights = results(model)
json.dump({
    "devices": jax.device_count(),
    "before": before,
    "after": shardings(),
    "logits": float(np.abs(split_logits - logits).max()),
    "scale": float(logits.std()),
    "generated": bool((split_generated == generated).all()),
    "loss": abs(split_loss[0] - loss[0]),
    "weights": max(
        float(np.abs(a - b).max())
        for a, b in zip(split_weights, weights, strict=True)),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def on_eight_devices():
    """What the program above finds; JAX takes its devices at the start."""
    return run_on_eight_devices(PROGRAM)


@pytest.mark.parametrize("when", ("before", "after"))
def test_every_variable_lies_on_the_devices_as_expected(on_eight_devices, when):
    """Before the first step and after it; optimizer slots included."""
    variables = on_eight_devices[when]
    assert len(variables) == 3 * (10 + 5) + 2
    for path, found in variables.items():
        axes = expected_axes(path)
        assert [axis for axis in found["axes"] if axis] == [a for a in axes if a], path
        assert found["devices"] == 8
        shape = list(found["shape"])
        if axes:
            assert (
                found["axes"][: axes.index("model") + 1]
                == (axes[: axes.index("model") + 1])
            ), path
            shape[axes.index("model")] //= 4
        assert found["shard"] == shape, path


def test_split_model_gives_the_logits_of_the_whole_one(on_eight_devices):
    assert on_eight_devices["scale"] > 0.5
    assert on_eight_devices["logits"] < 1e-5


def test_split_model_generates_the_tokens_of_the_whole_one(on_eight_devices):
    assert on_eight_devices["generated"]


def test_a_step_of_the_split_model_is_a_step_of_the_whole_one(on_eight_devices):
    assert on_eight_devices["loss"] < 1e-5
    assert on_eight_devices["weights"] < 1e-5
