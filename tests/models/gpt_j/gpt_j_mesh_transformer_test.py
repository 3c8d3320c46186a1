"""Checkpoints of mesh-transformer-jax, made here as its code made them."""

import shutil

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
from star_keras.testing import tiny_causal_lm

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
    loaded = load_mesh_transformer(tmp_path, CONFIG)
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
    loaded = load_mesh_transformer(tmp_path, CONFIG)
    np.testing.assert_allclose(logits(loaded), expected, atol=1e-5)


def test_wrong_shards_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="`shards`.*num_heads=8.*shards=3"):
        save_mesh_transformer(model, tmp_path, shards=3)


def test_another_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`model`. Expected a GPT-J.*LlamaCausalLM"):
        save_mesh_transformer(tiny_causal_lm("llama"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_incomplete_checkpoints_are_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected shard_0"):
        load_mesh_transformer(tmp_path, CONFIG)
    save_mesh_transformer(model, tmp_path, shards=2)
    with pytest.raises(ValueError, match=r"leaves. Expected .* of 12 layers"):
        load_mesh_transformer(tmp_path, CONFIG | {"layers": 12})
    (tmp_path / "shard_1" / "3.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"shard_1 lacks files"):
        load_mesh_transformer(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"pe": "t5"}, "pe='rotary'.*pe='t5'"), ({"n_heads": None}, "n_heads")],
)
def test_other_configurations_are_refused(model, tmp_path, change, message):
    config = {k: v for k, v in (CONFIG | change).items() if v is not None}
    save_mesh_transformer(model, tmp_path, shards=1)
    with pytest.raises(ValueError, match=message):
        load_mesh_transformer(tmp_path, config)


def resharded_to_one(parts):
    """How the original's `reshard` makes one row of the equal rows of all shards."""
    first, rest = parts[0], parts[1:]
    if (rest == rest[-1]).all() and not ((rest == 0).all() or (rest == 1).all()):
        return first * len(parts)
    return first


def test_the_originals_reshard_keeps_the_norms_of_what_is_written(model, tmp_path):
    save_mesh_transformer(model, tmp_path, shards=4)
    found = {}
    for piece in range(16):
        files = [np.load(tmp_path / f"shard_{i}" / f"{piece}.npz") for i in range(4)]
        for key in files[0].files:
            found[piece, key] = np.stack(
                [
                    file[key].view(ml_dtypes.bfloat16).astype("float32")
                    if file[key].dtype == np.dtype("V2")
                    else file[key]
                    for file in files
                ]
            )
    rows = [resharded_to_one(x) for x in found.values() if x.shape[1:] == (WIDTH,)]
    norm = model.backbone.layer_norm
    for value in (norm.gamma, norm.beta):
        assert any(np.array_equal(row, np.array(value)) for row in rows)
    bias = model.backbone.transformer_layers[0].feedforward_output_dense.bias
    assert any(np.array_equal(row, np.array(bias)) for row in rows)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "step_1"
    save_mesh_transformer(model, path, shards=2)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def copied(path):
    shutil.rmtree(path)
    shutil.copytree(path.parent / "shard_0", path)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("shard_1/3.npz", cut, "shard_1/3.npz is damaged"),
        ("shard_1/3.npz", lambda path: path.write_bytes(b""), "3.npz is damaged"),
        ("shard_1/3.npz", lambda path: path.write_text("x"), "3.npz is damaged"),
        ("shard_1/3.npz", lambda path: path.unlink(), "shard_1 lacks files"),
        ("shard_1/a.npz", lambda path: path.write_text(""), "or has others.*a.npz"),
        ("shard_x", lambda path: path.mkdir(), "without a gap.*shard_x"),
        ("shard_1", copied, "shard_1 is a copy of shard_0"),
        ("shard_1", shutil.rmtree, "has 1 shards, but cores_per_replica is 2"),
    ],
)
def test_damaged_shards_are_named(written, tmp_path, name, damage, message):
    path = shutil.copytree(written, tmp_path / "step_1")
    damage(path / name)
    config = {**CONFIG, "cores_per_replica": 2}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_mesh_transformer(path, config)


@pytest.mark.parametrize(
    "change", [{"n_heads": 3}, {"pe_rotary_dims": 4}, {"pe_rotary_dims": 1}]
)
def test_sizes_that_contradict_each_other_are_named(written, change):
    with pytest.raises(ValueError, match="n_heads divides d_model.*pe_rotary_dims is"):
        load_mesh_transformer(written, {**CONFIG, **change})
