"""GPT-J to and from checkpoints of mesh-transformer-jax.

A checkpoint is a directory with `shard_0/`, `shard_1/`, ..., one for each of the
cores that a model was split over. Each has `0.npz`, `1.npz`, ... (16 of them)
with arrays `arr_0`, `arr_1`, ...: read in this order they are the leaves of

    {"opt_state": ..., "params": {module: {name: array}}, "step": ...}

as JAX flattens it, keys sorted as strings at each level (so `layer_10` comes
before `layer_2`). A slim checkpoint lacks `opt_state`; its `params` are
bfloat16, which numpy reads as the void type `V2`. With H the width, V the
vocabulary and S the number of shards, the modules of `causal_transformer_shard/~/`
are

    embedding_shard/~/linear                    w (V/S, H), b (H)
    layer_<i>/~/linear, linear_1, linear_2      w (H, H/S): query, value, key
    layer_<i>/~/linear_3                        w (H/S, H): attention output
    layer_<i>/~/linear_4                        w (H, 4H/S), b (4H/S)
    layer_<i>/~/linear_5                        w (4H/S, H), b (H)
    layer_<i>/~/replicated_layer_norm           offset (H), scale (H)
    projection_shard/~/linear                   w (H, V/S), b (V/S)
    projection_shard/~/replicated_layer_norm    offset (H), scale (H)

Matrices are (inputs, outputs). Each shard has its own `b` of the embedding and of
`linear_5`; the model's bias is the sum over shards. Of the LayerNorms the first
shard's counts; we write ones and zeros into the others, as the original's own
`reshard` needs it. The embedding's bias is added to every token.

Reference:
    [mesh-transformer-jax](https://github.com/kingoflolz/mesh-transformer-jax),
    `checkpoint.py`, `layers.py` and `to_hf_weights.py`.
"""

from pathlib import Path

import ml_dtypes
import numpy as np

from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j.gpt_j_causal_lm import GPTJCausalLM
from star_keras.models.gpt_j.gpt_j_weights import gpt_j_weights
from star_keras.models.gpt_j.mesh_transformer_shards import check_copies, open_shards
from star_keras.models.hugging_face.stored_weights import make_with_weights
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import read_json_object

_MODULES = "causal_transformer_shard/~/"
_PIECES = 16
_SIZES = {
    "layers": "num_layers",
    "n_heads": "num_heads",
    "d_model": "hidden_dim",
    "n_vocab": "vocabulary_size",
    "pe_rotary_dims": "rotary_dim",
    "seq": "max_sequence_length",
}
# How a leaf's shards become one array: the sum, the first, or joined along an axis.
_SUM, _FIRST = "sum", "first"
_LAYER = {
    "attn.q_proj.weight": ("linear/w", 1),
    "attn.v_proj.weight": ("linear_1/w", 1),
    "attn.k_proj.weight": ("linear_2/w", 1),
    "attn.out_proj.weight": ("linear_3/w", 0),
    "mlp.fc_in.weight": ("linear_4/w", 1),
    "mlp.fc_in.bias": ("linear_4/b", 0),
    "mlp.fc_out.weight": ("linear_5/w", 0),
    "mlp.fc_out.bias": ("linear_5/b", _SUM),
    "ln_1.weight": ("replicated_layer_norm/scale", _FIRST),
    "ln_1.bias": ("replicated_layer_norm/offset", _FIRST),
}
_EMBEDDING_BIAS = f"{_MODULES}embedding_shard/~/linear/b"


def _leaves(num_layers):
    """Dict from the names of `gpt_j_weights` to a leaf and how it is split."""
    leaves = {
        "transformer.wte.weight": (f"{_MODULES}embedding_shard/~/linear/w", 0),
        "lm_head.weight": (f"{_MODULES}projection_shard/~/linear/w", 1),
        "lm_head.bias": (f"{_MODULES}projection_shard/~/linear/b", 0),
    }
    for name, leaf in (("weight", "scale"), ("bias", "offset")):
        leaves[f"transformer.ln_f.{name}"] = (
            f"{_MODULES}projection_shard/~/replicated_layer_norm/{leaf}",
            _FIRST,
        )
    for i in range(num_layers):
        for name, (leaf, split) in _LAYER.items():
            leaves[f"transformer.h.{i}.{name}"] = f"{_MODULES}layer_{i}/~/{leaf}", split
    return leaves


def _order(num_layers):
    """The names of the leaves of `params` in the order of the files."""
    names = [_EMBEDDING_BIAS, *(leaf for leaf, _ in _leaves(num_layers).values())]
    return sorted(names, key=lambda name: name.rpartition("/")[::2])


def _sizes(config):
    """The arguments of the backbone in a training configuration, which is checked."""
    for name, valid in (("pe", "rotary"), ("norm", "layernorm")):
        if config.get(name, valid) != valid:
            raise ValueError(
                f"Invalid value for argument `config`. Expected {name}={valid!r}, as "
                f"GPT-J has. Received: {name}={config[name]!r}."
            )
    missing = sorted(_SIZES.keys() - config.keys())
    if missing:
        raise ValueError(
            f"Invalid value for argument `config`. Expected {sorted(_SIZES)}. "
            f"Missing: {missing}."
        )
    sizes = {ours: config[theirs] for theirs, ours in _SIZES.items()}
    sizes["intermediate_dim"] = 4 * sizes["hidden_dim"]
    heads, width = sizes["num_heads"], sizes["hidden_dim"]
    if width % heads or sizes["rotary_dim"] > width // heads or sizes["rotary_dim"] % 2:
        raise ValueError(
            "Invalid value for argument `config`. Expected that n_heads divides "
            "d_model, and that pe_rotary_dims is even and at most d_model / n_heads. "
            "Received: "
            f"n_heads={heads}, d_model={width}, "
            f"pe_rotary_dims={sizes['rotary_dim']}."
        )
    return sizes


def load_mesh_transformer(
    directory, config, preprocessor=None, on_weight=None, **kwargs
):
    """Load a `GPTJCausalLM` from a slim or full checkpoint with any shards.

    Args:
        directory: Path of the checkpoint, e.g. `"step_383500"`.
        config: dict, or path of a JSON file. The training configuration of the
            checkpoint, with `layers`, `d_model`, `n_heads`, `n_vocab`,
            `pe_rotary_dims` and `seq`.
        preprocessor: optional `GPTJCausalLMPreprocessor`. A checkpoint has no
            tokenizer.
        on_weight: optional callable without arguments, called after each weight.
        **kwargs: Arguments of `GPTJBackbone`, e.g. `dtype="bfloat16"`.

    Returns:
        A `GPTJCausalLM`.

    Raises:
        ValueError: if `config` lacks a value, contradicts itself or is not one of
            GPT-J, the numbers of shards or leaves do not match it, a file is damaged,
            a shard is a copy of another, or a weight has another shape.
        FileNotFoundError: if a shard or one of its files is missing.
    """
    if not isinstance(config, dict):
        config = read_json_object(config)
    sizes = _sizes(config)
    shards = open_shards(Path(directory), config)
    order = _order(sizes["num_layers"])
    # In a full checkpoint the optimizer's state comes first: a step count, two
    # moments of each leaf and the count of the schedule. The last leaf is the step.
    count = len(shards[0])
    if count not in (len(order) + 1, 3 * len(order) + 3):
        raise ValueError(
            f"{directory} has {count} leaves. Expected {len(order) + 1} for a slim or "
            f"{3 * len(order) + 3} for a full checkpoint of {config['layers']} layers."
        )
    at = dict(zip(order, range(count - 1 - len(order), count - 1), strict=True))
    leaves = _leaves(sizes["num_layers"])

    def joined(leaf, split):
        parts = [shard.read(at[leaf]) for shard in shards]
        if leaf.endswith("embedding_shard/~/linear/w"):
            check_copies(directory, parts)
        if split == _SUM:
            return np.sum(parts, axis=0)
        return parts[0] if split == _FIRST else np.concatenate(parts, axis=split)

    def read(name):
        value = joined(*leaves[name])
        if name == "transformer.wte.weight":
            value = value + joined(_EMBEDDING_BIAS, _SUM)
        return value

    return make_with_weights(
        lambda: GPTJCausalLM(
            GPTJBackbone(**{**sizes, **kwargs}), preprocessor, compile=False
        ),
        gpt_j_weights,
        read,
        on_weight,
    )


def save_mesh_transformer(model, directory, shards=8):
    """Save a slim checkpoint: bfloat16, without the optimizer.

    Args:
        model: A `GPTJCausalLM` with `intermediate_dim = 4 * hidden_dim`.
        directory: Path of the checkpoint, made if needed.
        shards: int. Number of shards; must divide `num_heads` and
            `vocabulary_size`. Defaults to `8`.

    Raises:
        ValueError: if the model is no GPT-J, `shards` does not divide `num_heads` and
            `vocabulary_size`, or the MLP is not four times as wide as the network.
    """
    backbone = model.backbone
    if not isinstance(backbone, GPTJBackbone):
        rule = "a GPT-J, the only model of the format mesh_transformer"
        raise invalid("model", rule, type(model).__name__)
    for name in ("num_heads", "vocabulary_size"):
        if getattr(backbone, name) % shards:
            size = getattr(backbone, name)
            raise invalid("shards", f"a divisor of {name}={size}", shards)
    if backbone.intermediate_dim != 4 * backbone.hidden_dim:
        raise ValueError(
            "Invalid value for argument `model`. Expected intermediate_dim="
            f"{4 * backbone.hidden_dim}, four times hidden_dim, as the format "
            f"requires. Received: intermediate_dim={backbone.intermediate_dim}."
        )
    weights = gpt_j_weights(model)
    sources = {
        leaf: (weights[name], split)
        for name, (leaf, split) in _leaves(backbone.num_layers).items()
    }

    def leaf_shards(leaf):
        if leaf == "step":
            return [np.array(0, "int32")] * shards
        if leaf == _EMBEDDING_BIAS:
            return [np.zeros(backbone.hidden_dim, ml_dtypes.bfloat16)] * shards
        weight, split = sources[leaf]
        value = weight.read()
        if split == _SUM:
            parts = [value / shards] * shards
        elif split == _FIRST:
            # The original takes equal rows for biases, and sums them, unless those
            # after the first are all ones or all zeros.
            rest = np.ones_like if leaf.endswith("/scale") else np.zeros_like
            parts = [value] + [rest(value)] * (shards - 1)
        else:
            parts = np.split(value, shards, axis=split)
        return [part.astype(ml_dtypes.bfloat16) for part in parts]

    order = [*_order(backbone.num_layers), "step"]
    for piece, leaves in enumerate(np.array_split(order, _PIECES)):
        arrays = zip(*map(leaf_shards, leaves), strict=True)
        for shard in range(shards):
            folder = Path(directory) / f"shard_{shard}"
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / f"{piece}.npz", *next(arrays, ()))
