"""GPT-NeoX and Pythia."""

from star_keras.models.hugging_face.family import StoredFamily
from star_keras.models.hugging_face.fields import take_rope
from star_keras.models.hugging_face.stored_weights import (
    reshaped,
    same,
    transposed,
)
from star_keras.models.pythia.pythia_causal_lm import PythiaCausalLM

# transformers' names of the two forms of GELU.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_approximate",
    "gelu_new": "gelu_approximate",
    "gelu_pytorch_tanh": "gelu_approximate",
}


def _read_config(fields):
    fields.only("use_parallel_residual", True)
    fields.only("attention_bias", True)
    fields.only("attention_dropout", 0.0)
    fields.only("hidden_dropout", 0.0)
    fields.only("classifier_dropout", 0.1, 0.0, None)  # of another head
    fields.unused("max_position_embeddings")  # the tokenizer keeps it
    activation = fields.take("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise fields.refused("hidden_act", activation, tuple(_ACTIVATIONS))
    theta = fields.take("rotary_emb_base", 10000)
    theta, _, parameters = take_rope(
        fields, theta=theta, partial=fields.take("rotary_pct", 0.25)
    )
    return {
        "vocabulary_size": fields.take("vocab_size"),
        "num_layers": fields.take("num_hidden_layers"),
        "num_heads": fields.take("num_attention_heads"),
        "hidden_dim": fields.take("hidden_size"),
        "intermediate_dim": fields.take("intermediate_size"),
        "activation": _ACTIVATIONS[activation],
        "rotary_percentage": parameters["partial_rotary_factor"],
        "rotary_max_wavelength": theta,
        "layer_norm_epsilon": fields.take("layer_norm_eps", 1e-5),
        "tie_word_embeddings": fields.take("tie_word_embeddings", False),
    }


def _write_config(backbone):
    exact = backbone.activation == "gelu"
    return {
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "hidden_act": "gelu" if exact else "gelu_new",
        "rotary_pct": backbone.rotary_percentage,
        "rotary_emb_base": backbone.rotary_max_wavelength,
        "layer_norm_eps": backbone.layer_norm_epsilon,
        "tie_word_embeddings": backbone.tie_word_embeddings,
        "attention_bias": True,
        "use_parallel_residual": True,
    }


def _weights(backbone):
    embedding = backbone.token_embedding
    table = {"gpt_neox.embed_in.weight": same(embedding.embeddings)}
    if not embedding.tie_weights:
        table["lm_head.weight"] = transposed(embedding.reverse_embeddings)

    def norm(name, layer):
        table[f"{name}.weight"] = same(layer.gamma)
        table[f"{name}.bias"] = same(layer.beta)

    def dense(name, layer):
        table[f"{name}.weight"] = transposed(layer.kernel)
        table[f"{name}.bias"] = reshaped(layer.bias, (layer.bias.value.size,))

    norm("gpt_neox.final_layer_norm", backbone.layer_norm)
    for i, block in enumerate(backbone.transformer_layers):
        attention, name = block._self_attention_layer, f"gpt_neox.layers.{i}"
        norm(f"{name}.input_layernorm", block._self_attention_layer_norm)
        norm(f"{name}.post_attention_layernorm", block._feedforward_layer_norm)
        dense(f"{name}.attention.query_key_value", attention._qkv_dense)
        dense(f"{name}.attention.dense", attention._output_dense)
        dense(f"{name}.mlp.dense_h_to_4h", block._feedforward_intermediate_dense)
        dense(f"{name}.mlp.dense_4h_to_h", block._feedforward_output_dense)
    return table


FAMILIES = {
    "gpt_neox": StoredFamily(
        architecture="GPTNeoXForCausalLM",
        causal_lm=PythiaCausalLM,
        read_config=_read_config,
        write_config=_write_config,
        weights=_weights,
        prefix="gpt_neox.",
        renamed={"embed_out.weight": "lm_head.weight"},
    ),
}
