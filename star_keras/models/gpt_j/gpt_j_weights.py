"""The weights of a GPT-J as named matrices, for conversions."""

import keras
import numpy as np

from star_keras.models.hugging_face import stored_weights
from star_keras.models.hugging_face.stored_weights import reshaped


def gpt_j_weights(model):
    """The weights of a `GPTJCausalLM` under transformers' names.

    Args:
        model: A `GPTJCausalLM`.

    Returns:
        Dict from a name like `"transformer.h.0.attn.q_proj.weight"` to a pair
        `(variable, shape)`. `shape` is the variable's shape as a matrix
        `(inputs, outputs)`, or as a vector. transformers stores the transpose of
        every matrix except `"transformer.wte.weight"`.
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
        name: (variable, matrix_shape(variable.shape))
        for name, variable in weights.items()
    }


def make_with_weights(make_model, read, on_weight=None):
    """Make a model and set its weights, one at a time, the largest first.

    The random initial weights are never made. Memory holds the model and at most
    one more weight.

    Args:
        make_model: Callable without arguments that returns a `GPTJCausalLM`, not
            compiled.
        read: Callable from a name of `gpt_j_weights` to a float array of the
            matrix shape given there. The weight takes the dtype of its variable
            and the layout of the current `keras.distribution`.
        on_weight: optional callable without arguments, called after each weight.

    Returns:
        The model, compiled with the defaults of its class.

    Raises:
        ValueError: if an array has another shape. The error names the weight.
    """

    def table(model):
        weights = gpt_j_weights(model)
        return {name: reshaped(*pair) for name, pair in weights.items()}

    return stored_weights.make_with_weights(make_model, table, read, on_weight)


def read_weight(variable, shape):
    """The value of a variable as a matrix.

    Args:
        variable: A variable of `gpt_j_weights`, float of any shape.
        shape: Its matrix shape, from `gpt_j_weights`.

    Returns:
        A numpy array of that shape, in the dtype of the variable.
    """
    return np.reshape(np.asarray(keras.ops.convert_to_tensor(variable)), shape)
