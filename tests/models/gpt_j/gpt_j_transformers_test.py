"""Our GPT-J computes what transformers' GPT-J computes with the same weights."""

import json
import pathlib

import numpy as np
import pytest

from star_keras.models import GPTJBackbone, GPTJCausalLM
from tests.conftest import run_with_torch

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures"
CASES = ("one_layer", "three_layers", "padded")


def load_case(path):
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    config = json.loads(str(arrays.pop("config")))
    state = {
        key.removeprefix("state/"): arrays.pop(key)
        for key in list(arrays)
        if key.startswith("state/")
    }
    return config, state, arrays


def model_from_transformers(config, state):
    """A `GPTJCausalLM` with a transformers state dict's weights."""
    hidden_dim, num_heads = config["n_embd"], config["n_head"]
    heads = (num_heads, hidden_dim // num_heads)
    model = GPTJCausalLM(
        GPTJBackbone(
            vocabulary_size=config["vocab_size"],
            num_layers=config["n_layer"],
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=config["n_inner"] or 4 * hidden_dim,
            rotary_dim=config["rotary_dim"],
            layer_norm_epsilon=config["layer_norm_epsilon"],
        ),
        compile=False,
    )
    state = {name: value.astype("float32") for name, value in state.items()}

    def layer_norm(layer, name):
        layer.set_weights([state.pop(f"{name}.weight"), state.pop(f"{name}.bias")])

    def dense(layer, name):
        layer.set_weights([state.pop(f"{name}.weight").T, state.pop(f"{name}.bias")])

    backbone = model.backbone
    backbone.token_embedding.set_weights([state.pop("transformer.wte.weight")])
    for i, layer in enumerate(backbone.transformer_layers):
        name = f"transformer.h.{i}"
        attention = layer.self_attention
        layer_norm(layer.layer_norm, f"{name}.ln_1")
        for projection, letter in (
            (attention.query, "q"),
            (attention.key, "k"),
            (attention.value, "v"),
        ):
            kernel = state.pop(f"{name}.attn.{letter}_proj.weight").T
            projection.set_weights([kernel.reshape(hidden_dim, *heads)])
        kernel = state.pop(f"{name}.attn.out_proj.weight").T
        attention.attention_output.set_weights([kernel.reshape(*heads, hidden_dim)])
        dense(layer.feedforward_intermediate_dense, f"{name}.mlp.fc_in")
        dense(layer.feedforward_output_dense, f"{name}.mlp.fc_out")
    layer_norm(backbone.layer_norm, "transformer.ln_f")
    dense(model.lm_head, "lm_head")
    assert not state
    return model


def assert_equal_logits(model, arrays):
    mask = arrays["attention_mask"]
    inputs = {"token_ids": arrays["token_ids"], "padding_mask": mask}
    logits = model.predict_on_batch(inputs)
    expected = arrays["logits"]
    real = mask.astype("bool")
    assert 0.3 < expected[real].std() < 3  # the tolerance means something
    np.testing.assert_allclose(logits[real], expected[real], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_those_of_transformers(name):
    config, state, arrays = load_case(FIXTURES / "gpt_j" / f"{name}.npz")
    assert_equal_logits(model_from_transformers(config, state), arrays)


@pytest.mark.parametrize("name", CASES)
def test_greedy_generation_gives_the_tokens_of_transformers(name):
    config, state, arrays = load_case(FIXTURES / "gpt_j" / f"{name}.npz")
    model = model_from_transformers(config, state)
    model.compile(sampler="greedy")
    expected = arrays["generated"]
    is_prompt = np.arange(expected.shape[1]) < arrays["prompt_lengths"][:, None]
    generated = model.generate(
        {
            "token_ids": np.where(is_prompt, expected, 0),
            "padding_mask": is_prompt.astype("int32"),
        },
        stop_token_ids=None,
    )
    np.testing.assert_array_equal(generated["token_ids"], expected)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """What the installed transformers computes, a directory of npz files."""
    directory = tmp_path_factory.mktemp("computed")
    run_with_torch("gpt_j_by_transformers", "cases", FIXTURES, directory)
    return directory


@pytest.mark.parametrize("name", CASES)
def test_fixtures_hold_what_transformers_computes(computed, name):
    _, _, arrays = load_case(FIXTURES / "gpt_j" / f"{name}.npz")
    expected = np.load(computed / f"{name}.npz")
    np.testing.assert_allclose(arrays["logits"], expected["logits"], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(arrays["generated"], expected["generated"])


@pytest.mark.parametrize("rotary_dim", (2, 6, 8))
@pytest.mark.parametrize("num_layers", (1, 3))
def test_other_shapes_equal_transformers_too(computed, rotary_dim, num_layers):
    path = computed / f"shape_{num_layers}_{rotary_dim}.npz"
    config, state, arrays = load_case(path)
    assert_equal_logits(model_from_transformers(config, state), arrays)
