"""The split axis of each weight of a causal LM."""

import re

import keras

# Names of weights in GPT-J and KerasHub, and their split axes.
_SPLIT = (
    # Vocabulary. The embedding of a model with tied weights is also its head.
    (r"token_embedding/embeddings", ("split", None)),
    (r"token_embedding/reverse_embeddings", (None, "split")),
    (r"lm_head/kernel", (None, "split")),
    (r"lm_head/bias", ("split",)),
    # Heads. They are the first axis of Gemma's kernels.
    (r"self_attention/(query|key|value)/kernel", (None, "split", None)),
    (r"self_attention/(query|key|value)/bias", ("split", None)),
    (r"decoder_block_\d+/attention/(query|key|value)/kernel", ("split", None, None)),
    (
        r"transformer_layer_\d+/attention/(query|key|value)/kernel",
        (None, "split", None),
    ),
    (r"attention_output/kernel", ("split", None, None)),
    # GPT-NeoX has one kernel for all three, and SmolLM 3 matrices.
    (r"self_attention/query_key_value/kernel", (None, "split", None)),
    (r"self_attention/query_key_value/bias", ("split", None)),
    (r"self_attn/(q|k|v)_proj/kernel", (None, "split")),
    (r"self_attn/(q|k|v)_proj/bias", ("split",)),
    (r"o_proj/kernel", ("split", None, None)),
    # Width of the MLP. (The router of Mixtral's experts is no MLP.)
    (r"(?<!sparse_)feedforward_(intermediate|gate)_dense/kernel", (None, "split")),
    (r"feedforward_(intermediate|gate)_dense/bias", ("split",)),
    (r"mlp/(gate|up)_proj/kernel", (None, "split")),
    (r"mlp/(gate|up)_proj/bias", ("split",)),
    (r"mlp/down_proj/kernel", ("split", None)),
    (r"expert_feedforward_(intermediate|gate)_dense", (None, None, "split")),
    (r"expert_feedforward_output_dense", (None, "split", None)),
    (r"feedforward_output_dense/kernel", ("split", None)),
    (r"ffw_gating(_2)?/kernel", (None, "split")),
    (r"ffw_linear/kernel", ("split", None)),
)

# Weights of two axes or more that every device holds whole.
REPLICATED = (
    r"position_embedding/embeddings",  # 0.6% of GPT-2
    r".*/lora_(kernel|embeddings)_[ab]",
    r"sparse_feedforward_gate_dense/kernel",
)


def causal_lm_layout_map(device_mesh, model_axis="model"):
    """Layout map that splits a causal LM over one axis of a mesh.

    It knows the families of the fast way, and other models with the same weight
    names. As in Megatron-LM, heads, the MLP's width and
    the vocabulary are split. LayerNorms, the biases of output projections and the
    weights of `REPLICATED` are not.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh`.
        model_axis: string. Name of the mesh axis. Defaults to `"model"`.

    Returns:
        A `keras.distribution.LayoutMap`. It also matches the optimizer's slots of
        each weight.

    Reference:
        [Megatron-LM](https://arxiv.org/abs/1909.08053), section 3.
    """
    layout_map = keras.distribution.LayoutMap(device_mesh)
    for name, axes in _SPLIT:
        layout_map[_path_pattern(name)] = tuple(
            model_axis if axis else None for axis in axes
        )
    return layout_map


def is_replicated(path):
    """Whether `REPLICATED` lists a weight.

    Args:
        path: string. Path of the weight, or of an optimizer's slot of it.

    Returns:
        bool.
    """
    return any(re.fullmatch(_path_pattern(name), path) for name in REPLICATED)


def _path_pattern(name):
    # Keras matches whole paths. The path of an optimizer's slot is the path of the
    # weight with `_` for `/`, between the names of the optimizer and the slot.
    return rf"(.*[/_])?{name.replace('/', '[/_]')}(_.*)?"
