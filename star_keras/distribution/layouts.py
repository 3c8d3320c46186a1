"""Which axis of each weight of a causal LM is split over a mesh."""

import re

import keras

# Names of weights in GPT-J and KerasHub, and which axis is split.
_SPLIT = (
    # Vocabulary. Without an untied head the embedding is the head.
    (r"token_embedding/embeddings", ("split", None)),
    (r"token_embedding/reverse_embeddings", (None, "split")),
    (r"lm_head/kernel", (None, "split")),
    (r"lm_head/bias", ("split",)),
    # Heads. Gemma's kernels begin with them.
    (r"self_attention/(query|key|value)/kernel", (None, "split", None)),
    (r"self_attention/(query|key|value)/bias", ("split", None)),
    (r"decoder_block_\d+/attention/(query|key|value)/kernel", ("split", None, None)),
    (r"attention_output/kernel", ("split", None, None)),
    # Width of the MLP.
    (r"feedforward_(intermediate|gate)_dense/kernel", (None, "split")),
    (r"feedforward_intermediate_dense/bias", ("split",)),
    (r"feedforward_output_dense/kernel", ("split", None)),
    (r"ffw_gating(_2)?/kernel", (None, "split")),
    (r"ffw_linear/kernel", ("split", None)),
)

# All weights of two axes or more that are not split.
REPLICATED = (
    r"position_embedding/embeddings",  # 0.6% of GPT-2
    r".*/lora_(kernel|embeddings)_[ab]",
)


def causal_lm_layout_map(device_mesh, model_axis="model"):
    """Layout map that splits a causal LM over one axis of a mesh.

    For GPT-J and KerasHub's GPT-2, Llama, Mistral, Gemma, Qwen and others with
    the same names. Heads, the MLP's width and the vocabulary are split, as in
    Megatron-LM; LayerNorms, the biases of output projections and what
    `REPLICATED` lists are not.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh`.
        model_axis: Name of the mesh axis. Defaults to `"model"`.

    Returns:
        A `keras.distribution.LayoutMap`, which also matches the optimizer's
        slots of each weight.

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
    """Whether a weight, or an optimizer's slot of it, is in `REPLICATED`."""
    return any(re.fullmatch(_path_pattern(name), path) for name in REPLICATED)


def _path_pattern(name):
    # Keras matches whole paths. Optimizer slots put their own name around the
    # weight's, with `/` turned into `_`.
    return rf"(.*[/_])?{name.replace('/', '[/_]')}(_.*)?"
