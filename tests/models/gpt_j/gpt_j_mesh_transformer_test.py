"""Checkpoints of mesh-transformer-jax, made here as its code made them."""

import jax
import ml_dtypes
import numpy as np
import pytest

from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    load_mesh_transformer,
    save_mesh_transformer,
)

LAYERS, WIDTH, HEADS, VOCABULARY = 11, 16, 8, 24
CONFIG = {
    "layers": LAYERS,
    "d_model": WIDTH,
    "n_heads": HEADS,
    "n_vocab": VOCABULARY,
    "pe": "rotary",
    "pe_rotary_dims": 2,
    "norm": "layernorm",
    "seq": 32,
}


@pytest.fixture(scope="module")
def model():
    model = GPTJCausalLM(
        GPTJBackbone(
            vocabulary_size=VOCABULARY,
            num_layers=LAYERS,
            num_heads=HEADS,
            hidden_dim=WIDTH,
            intermediate_dim=4 * WIDTH,
            rotary_dim=2,
        )
    )
    rng = np.random.default_rng(0)
    for variable in model.weights:
        # Numbers without a rounding error in bfloat16, nor have their eighths.
        value = rng.integers(-8, 8, size=variable.shape) / 16
        variable.assign(value)
    return model


@pytest.fixture(scope="module")
def expected(model):
    return logits(model)


def logits(model):
    token_ids = np.arange(1, 23).reshape(2, 11)
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    return np.array(model(inputs))


def shard_params(model, shards, rng):
    """What each core holds, as a dict of modules."""
    backbone = model.backbone

    def columns(matrix):
        return np.split(np.array(matrix).reshape(WIDTH, -1), shards, axis=1)

    def rows(matrix):
        return np.split(np.array(matrix).reshape(-1, WIDTH), shards, axis=0)

    def summands(bias):
        parts = rng.integers(-8, 8, size=(shards, WIDTH)) / 16
        parts[0] += np.array(bias) - parts.sum(axis=0)
        return list(parts.astype("float32"))

    def norm(layer):
        # Only the first core's copy counts.
        noise = rng.normal(size=(shards, WIDTH)).astype("float32")
        noise[0] = 0
        return {
            "offset": [np.array(layer.beta) + n for n in noise],
            "scale": [np.array(layer.gamma) + n for n in noise],
        }

    prefix = "causal_transformer_shard/~/"
    bias = rng.integers(-8, 8, size=(WIDTH,)) / 16
    modules = {
        f"{prefix}embedding_shard/~/linear": {
            "w": rows(np.array(backbone.token_embedding.embeddings) - bias),
            "b": summands(bias),
        },
        f"{prefix}projection_shard/~/linear": {
            "w": columns(model.lm_head.kernel),
            "b": np.split(np.array(model.lm_head.bias), shards),
        },
        f"{prefix}projection_shard/~/replicated_layer_norm": norm(backbone.layer_norm),
    }
    for i, layer in enumerate(backbone.transformer_layers):
        attention = layer.self_attention
        up, down = (
            layer.feedforward_intermediate_dense,
            layer.feedforward_output_dense,
        )
        for name, content in {
            "linear": {"w": columns(attention.query.kernel)},
            "linear_1": {"w": columns(attention.value.kernel)},
            "linear_2": {"w": columns(attention.key.kernel)},
            "linear_3": {"w": rows(attention.attention_output.kernel)},
            "linear_4": {
                "w": columns(up.kernel),
                "b": np.split(np.array(up.bias), shards),
            },
            "linear_5": {"w": rows(down.kernel), "b": summands(down.bias)},
            "replicated_layer_norm": norm(layer.layer_norm),
        }.items():
            modules[f"{prefix}layer_{i}/~/{name}"] = content
    return [
        {
            module: {name: parts[shard] for name, parts in content.items()}
            for module, content in modules.items()
        }
        for shard in range(shards)
    ]


def write(directory, model, shards, optimizer):
    """As `write_ckpt` does: leaves in 16 pieces, bfloat16 without a name."""
    rng = np.random.default_rng(1)
    for shard, params in enumerate(shard_params(model, shards, rng)):
        state = {"params": params, "step": np.array(7)}
        if optimizer:
            moments = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
            state["opt_state"] = [np.array(7), moments, moments, np.array(7)]
        else:
            state["params"] = jax.tree.map(
                lambda x: x.astype(ml_dtypes.bfloat16).view("V2"), params
            )
        leaves = jax.tree.leaves(state)
        size, more = divmod(len(leaves), 16)
        (directory / f"shard_{shard}").mkdir(parents=True)
        for piece in range(16):
            start = piece * size + min(piece, more)
            end = start + size + (piece < more)
            np.savez(directory / f"shard_{shard}" / f"{piece}.npz", *leaves[start:end])
    return directory


@pytest.mark.parametrize("optimizer", [False, True], ids=["slim", "full"])
@pytest.mark.parametrize("shards", [1, 2, 8])
def test_any_number_of_shards_gives_the_models_logits(
    model, expected, tmp_path, shards, optimizer
):
    write(tmp_path, model, shards, optimizer)
    loaded = load_mesh_transformer(GPTJCausalLM, tmp_path, CONFIG)
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-5)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(ours.value, theirs.value, atol=1e-6)


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_slim_checkpoints_come_back_resharded(model, expected, tmp_path, shards):
    save_mesh_transformer(model, tmp_path, shards=shards)
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.npz")}
    assert len(files) == 16 * shards
    with np.load(tmp_path / "shard_0" / "0.npz") as file:
        assert file["arr_0"].dtype == "V2"
    loaded = load_mesh_transformer(GPTJCausalLM, tmp_path, CONFIG)
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-5)


def test_wrong_shards_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="`shards`.*num_heads=8.*shards=3"):
        save_mesh_transformer(model, tmp_path, shards=3)


def test_incomplete_checkpoints_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected shard_0"):
        load_mesh_transformer(GPTJCausalLM, tmp_path, CONFIG)
    save_mesh_transformer(model, tmp_path, shards=2)
    with pytest.raises(ValueError, match=r"leaves. Expected .* of 12 layers"):
        load_mesh_transformer(GPTJCausalLM, tmp_path, CONFIG | {"layers": 12})
    (tmp_path / "shard_1" / "3.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard_1 lacks files"):
        load_mesh_transformer(GPTJCausalLM, tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"pe": "t5"}, "pe='rotary'.*pe='t5'"), ({"n_heads": None}, "n_heads")],
)
def test_other_configurations_are_refused(model, tmp_path, change, message):
    config = {k: v for k, v in (CONFIG | change).items() if v is not None}
    save_mesh_transformer(model, tmp_path, shards=1)
    with pytest.raises(ValueError, match=message):
        load_mesh_transformer(GPTJCausalLM, tmp_path, config)
