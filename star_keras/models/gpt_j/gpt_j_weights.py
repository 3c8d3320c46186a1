"""The weights of a GPT-J as named matrices, for conversions."""

from star_keras.models.hugging_face.stored_weights import reshaped


def gpt_j_weights(model):
    """The weights of a `GPTJCausalLM` under transformers' names.

    Args:
        model: A `GPTJCausalLM`.

    Returns:
        Dict from a name like `"transformer.h.0.attn.q_proj.weight"` to a
        `StoredWeight`, a matrix `(inputs, outputs)` or a vector. transformers stores
        the transpose of every matrix except `"transformer.wte.weight"`.
    """
    backbone = model.backbone
    hidden_dim = backbone.hidden_dim
    weights = {"transformer.wte.weight": backbone.token_embedding.embeddings}
    for i, layer in enumerate(backbone.transformer_layers):
        attention = layer.self_attention
        block = f"transformer.h.{i}"
        weights |= {
            f"{block}.ln_1.weight": layer.layer_norm.gamma,
            f"{block}.ln_1.bias": layer.layer_norm.beta,
            f"{block}.attn.q_proj.weight": attention.query.kernel,
            f"{block}.attn.k_proj.weight": attention.key.kernel,
            f"{block}.attn.v_proj.weight": attention.value.kernel,
            f"{block}.attn.out_proj.weight": attention.attention_output.kernel,
            f"{block}.mlp.fc_in.weight": layer.feedforward_intermediate_dense.kernel,
            f"{block}.mlp.fc_in.bias": layer.feedforward_intermediate_dense.bias,
            f"{block}.mlp.fc_out.weight": layer.feedforward_output_dense.kernel,
            f"{block}.mlp.fc_out.bias": layer.feedforward_output_dense.bias,
        }
    weights |= {
        "transformer.ln_f.weight": backbone.layer_norm.gamma,
        "transformer.ln_f.bias": backbone.layer_norm.beta,
        "lm_head.weight": model.lm_head.kernel,
        "lm_head.bias": model.lm_head.bias,
    }

    def matrix_shape(shape):  # (hidden_dim, heads, head_dim) and the like
        return (hidden_dim, hidden_dim) if len(shape) == 3 else tuple(shape)

    return {
        name: reshaped(variable, matrix_shape(variable.shape))
        for name, variable in weights.items()
    }
