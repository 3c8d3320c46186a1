"""Which axis of each GPT-J weight is split over the mesh."""

import keras


def gpt_j_layout_map(device_mesh, model_axis="model"):
    """Layout map that splits GPT-J over one axis of a mesh.

    Heads, the MLP's width and the vocabulary are split (as in Megatron-LM,
    one all-reduce after attention and MLP together, since the blocks are
    parallel). LayerNorms and the biases of the output projections are
    replicated.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh`.
        model_axis: Name of the mesh axis. Defaults to `"model"`.

    Returns:
        A `keras.distribution.LayoutMap`, which also matches the optimizer's
        slots of each weight.
    """
    layout_map = keras.distribution.LayoutMap(device_mesh)
    # Keys must match a whole variable path; optimizer slots put their own
    # name around it, with `/` turned into `_`.
    for key, layout in (
        (r"token_embedding[/_]embeddings", (model_axis, None)),
        (r"self_attention[/_](query|key|value)[/_]kernel", (None, model_axis, None)),
        (r"attention_output[/_]kernel", (model_axis, None, None)),
        (r"feedforward_intermediate_dense[/_]kernel", (None, model_axis)),
        (r"feedforward_intermediate_dense[/_]bias", (model_axis,)),
        (r"feedforward_output_dense[/_]kernel", (model_axis, None)),
        (r"lm_head[/_]kernel", (None, model_axis)),
        (r"lm_head[/_]bias", (model_axis,)),
    ):
        layout_map[rf".*{key}.*"] = layout
    return layout_map
