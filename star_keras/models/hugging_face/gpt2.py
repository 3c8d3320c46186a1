"""GPT-2."""

import keras_hub

from star_keras.models.hugging_face.family import StoredFamily
from star_keras.models.hugging_face.stored_weights import (
    reshaped,
    same,
    side_by_side,
)

_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")


def _read_config(fields):
    fields.only("activation_function", "gelu_new", "gelu_pytorch_tanh")
    fields.only("layer_norm_epsilon", 1e-5)
    fields.only("scale_attn_weights", True)
    fields.only("scale_attn_by_inverse_layer_idx", False)
    fields.only("tie_word_embeddings", True)
    dropouts = {name: fields.take(name, 0.1) for name in _DROPOUTS}
    first = dropouts[_DROPOUTS[0]]
    for name, value in dropouts.items():
        if value != first:
            raise fields.refused(name, value, (first,))
    hidden_dim = fields.take("n_embd")
    return {
        "vocabulary_size": fields.take("vocab_size"),
        "num_layers": fields.take("n_layer"),
        "num_heads": fields.take("n_head"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": fields.take("n_inner", 4 * hidden_dim),
        "max_sequence_length": fields.take("n_positions", 1024),
        "dropout": first,
    }


def _write_config(backbone):
    return {
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "vocab_size": backbone.vocabulary_size,
        "n_layer": backbone.num_layers,
        "n_head": backbone.num_heads,
        "n_embd": backbone.hidden_dim,
        "n_inner": backbone.intermediate_dim,
        "n_positions": backbone.max_sequence_length,
        **dict.fromkeys(_DROPOUTS, backbone.dropout),
    }


def _weights(backbone):
    hidden_dim = backbone.hidden_dim
    table = {
        "transformer.wte.weight": same(backbone.token_embedding.embeddings),
        "transformer.wpe.weight": same(backbone.position_embedding.position_embeddings),
    }

    def norm(name, layer):
        table[f"{name}.weight"] = same(layer.gamma)
        table[f"{name}.bias"] = same(layer.beta)

    def dense(name, layer):
        table[f"{name}.weight"] = same(layer.kernel)
        table[f"{name}.bias"] = same(layer.bias)

    norm("transformer.ln_f", backbone.layer_norm)
    for i, block in enumerate(backbone.transformer_layers):
        attention, name = block._self_attention_layer, f"transformer.h.{i}"
        projections = (
            attention.query_dense,
            attention.key_dense,
            attention.value_dense,
        )
        table |= {
            f"{name}.attn.c_attn.weight": side_by_side(
                [layer.kernel for layer in projections], (hidden_dim,)
            ),
            f"{name}.attn.c_attn.bias": side_by_side(
                [layer.bias for layer in projections], ()
            ),
            f"{name}.attn.c_proj.weight": reshaped(
                attention.output_dense.kernel, (hidden_dim, hidden_dim)
            ),
            f"{name}.attn.c_proj.bias": same(attention.output_dense.bias),
        }
        norm(f"{name}.ln_1", block._self_attention_layer_norm)
        norm(f"{name}.ln_2", block._feedforward_layer_norm)
        dense(f"{name}.mlp.c_fc", block._feedforward_intermediate_dense)
        dense(f"{name}.mlp.c_proj", block._feedforward_output_dense)
    return table


FAMILIES = {
    "gpt2": StoredFamily(
        architecture="GPT2LMHeadModel",
        causal_lm=keras_hub.models.GPT2CausalLM,
        read_config=_read_config,
        write_config=_write_config,
        weights=_weights,
        prefix="transformer.",
        length="n_positions",
    )
}
