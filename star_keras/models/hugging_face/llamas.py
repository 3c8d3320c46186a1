"""Llama, Mistral, Qwen 2 and Qwen 3: blocks of one pattern."""

import math

import keras_hub

from star_keras.models.hugging_face.family import StoredFamily
from star_keras.models.hugging_face.fields import take_rope
from star_keras.models.hugging_face.general_llamas import (
    general_family,
    take_bias,
    take_head_dim,
    take_windows,
    write_windows,
)
from star_keras.models.hugging_face.stored_weights import (
    reshaped,
    same,
    transposed,
)

# Names in the general form.
ATTENTION_BIASES = {"attention_bias": True, "attention_output_bias": True}
_GENERAL_FACTOR = "rope_position_scaling_factor"


def read_sizes(fields, epsilon=1e-6):
    """Arguments that all backbones have, their default being transformers'.

    Args:
        fields: The `Fields`.
        epsilon: float. The family's default of `rms_norm_eps`. Defaults to `1e-6`.

    Returns:
        dict of the arguments.

    Raises:
        ValueError: if a field is missing, or has a value that is not supported.
    """
    fields.only("hidden_act", "silu")
    fields.only("attention_dropout", 0.0)
    fields.unused("max_position_embeddings")  # the tokenizer keeps it
    num_heads = fields.take("num_attention_heads")
    return {
        "vocabulary_size": fields.take("vocab_size"),
        "num_layers": fields.take("num_hidden_layers"),
        "num_query_heads": num_heads,
        "num_key_value_heads": fields.take("num_key_value_heads", num_heads),
        "hidden_dim": fields.take("hidden_size"),
        "intermediate_dim": fields.take("intermediate_size"),
        "layer_norm_epsilon": fields.take("rms_norm_eps", epsilon),
    }


def _read_llama(fields):
    sizes = read_sizes(fields)
    fields.only("rope_interleaved", False)
    theta, kind, parameters = take_rope(fields, types=("default", "linear", "llama3"))
    scaling = {}
    if kind == "linear":
        scaling = {"rope_position_scaling_factor": parameters["factor"]}
    elif kind == "llama3":
        scaling = {
            "rope_frequency_adjustment_factor": parameters["factor"],
            "rope_low_freq_factor": parameters["low_freq_factor"],
            "rope_high_freq_factor": parameters["high_freq_factor"],
            "rope_pretraining_sequence_length": parameters[
                "original_max_position_embeddings"
            ],
        }
    return {
        **sizes,
        **scaling,
        **take_head_dim(fields, sizes),
        **take_bias(fields, "attention_bias", **ATTENTION_BIASES),
        **take_bias(fields, "mlp_bias", feedforward_bias=True),
        "rope_max_wavelength": theta,
        "tie_word_embeddings": fields.take("tie_word_embeddings", False),
    }


def _linear_rope(fields, factor="rope_scaling_factor"):
    """Arguments of the rotation; `factor` is the name of the divisor of positions."""
    theta, _, parameters = take_rope(fields, types=("default", "linear"))
    return {
        "rope_max_wavelength": theta,
        factor: parameters.get("factor", 1.0),
    }


def _read_mistral(fields):
    sizes = read_sizes(fields)
    # transformers' default is 4096; null is no window.
    window = 4096
    if "sliding_window" in fields:
        window = fields.take("sliding_window", None)
    sizes |= {"sliding_window": window, "head_dim": fields.take("head_dim", None)}
    if not fields.take("tie_word_embeddings", False):
        return {**sizes, **_linear_rope(fields)}
    layers = range(sizes["num_layers"]) if window else ()
    return {
        **sizes,
        **_linear_rope(fields, _GENERAL_FACTOR),
        "window_layers": tuple(layers),
        "tie_word_embeddings": True,
    }


def _read_qwen2(fields):
    sizes = read_sizes(fields)
    fields.only("use_mrope", False)
    sizes["tie_word_embeddings"] = fields.take("tie_word_embeddings", False)
    general = {
        **take_head_dim(fields, sizes),
        **take_windows(fields, sizes["num_layers"]),
    }
    if not general:
        return {**sizes, **_linear_rope(fields)}
    rope = _linear_rope(fields, _GENERAL_FACTOR)
    return {**sizes, **general, **rope, "attention_bias": True}


def _read_qwen3(fields):
    sizes = read_sizes(fields) | {"head_dim": fields.take("head_dim", 128)}
    sizes["tie_word_embeddings"] = fields.take("tie_word_embeddings", False)
    general = {
        **take_bias(fields, "attention_bias", **ATTENTION_BIASES),
        **take_windows(fields, sizes["num_layers"]),
    }
    if not general:
        return {**sizes, **_linear_rope(fields), "sliding_window_size": None}
    rope = _linear_rope(fields, _GENERAL_FACTOR)
    return {**sizes, **general, **rope, "query_key_norm": True}


def _write_sizes(backbone):
    head_dim = getattr(backbone, "head_dim", None)
    return {
        "hidden_act": "silu",
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_query_heads,
        "num_key_value_heads": backbone.num_key_value_heads,
        "head_dim": head_dim or backbone.hidden_dim // backbone.num_query_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "rms_norm_eps": backbone.layer_norm_epsilon,
        "rope_theta": backbone.rope_max_wavelength,
        "tie_word_embeddings": backbone.token_embedding.tie_weights,
    }


def _write_llama(backbone):
    if backbone.rope_low_freq_factor is not None:
        scaling = {
            "rope_type": "llama3",
            "factor": backbone.rope_frequency_adjustment_factor,
            "low_freq_factor": backbone.rope_low_freq_factor,
            "high_freq_factor": backbone.rope_high_freq_factor,
            "original_max_position_embeddings": (
                backbone.rope_pretraining_sequence_length
            ),
        }
    else:
        scaling = _write_linear_rope(backbone)
    return {
        **_write_sizes(backbone),
        "rope_scaling": scaling,
        "attention_bias": getattr(backbone, "attention_bias", False),
        "mlp_bias": getattr(backbone, "feedforward_bias", False),
    }


def _write_linear_rope(backbone):
    names = "rope_scaling_factor", "rope_position_scaling_factor"
    factor = next(getattr(backbone, name) for name in names if hasattr(backbone, name))
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}


def _write_mistral(backbone):
    return {
        **_write_sizes(backbone),
        "rope_scaling": _write_linear_rope(backbone),
        "sliding_window": backbone.sliding_window,
    }


def _write_qwen2(backbone):
    return {
        **_write_sizes(backbone),
        "rope_scaling": _write_linear_rope(backbone),
        **write_windows(backbone),
    }


def _write_qwen3(backbone):
    return {
        **_write_sizes(backbone),
        "rope_scaling": _write_linear_rope(backbone),
        **write_windows(backbone),
        "attention_bias": getattr(backbone, "attention_bias", False),
    }


def _weights(backbone):
    embedding = backbone.token_embedding
    table = {
        "model.embed_tokens.weight": same(embedding.embeddings),
        "model.norm.weight": same(backbone.layer_norm.scale),
    }
    if not embedding.tie_weights:
        table["lm_head.weight"] = transposed(embedding.reverse_embeddings)

    def dense(name, layer, input_axes=1):
        table[f"{name}.weight"] = transposed(layer.kernel, input_axes)
        if layer.bias is not None:
            table[f"{name}.bias"] = reshaped(layer.bias, (math.prod(layer.bias.shape),))

    for i, block in enumerate(backbone.transformer_layers):
        attention, name = block._self_attention_layer, f"model.layers.{i}"
        norms = {
            "input_layernorm": block._self_attention_layernorm,
            "post_attention_layernorm": block._feedforward_layernorm,
        }
        if hasattr(attention, "_query_dense_layer_norm"):
            norms |= {
                "self_attn.q_norm": attention._query_dense_layer_norm,
                "self_attn.k_norm": attention._key_dense_layer_norm,
            }
        table |= {
            f"{name}.{key}.weight": same(norm.scale) for key, norm in norms.items()
        }
        dense(f"{name}.self_attn.q_proj", attention._query_dense)
        dense(f"{name}.self_attn.k_proj", attention._key_dense)
        dense(f"{name}.self_attn.v_proj", attention._value_dense)
        dense(f"{name}.self_attn.o_proj", attention._output_dense, input_axes=2)
        dense(f"{name}.mlp.gate_proj", block._feedforward_gate_dense)
        dense(f"{name}.mlp.up_proj", block._feedforward_intermediate_dense)
        dense(f"{name}.mlp.down_proj", block._feedforward_output_dense)
    return table


FAMILIES = {
    "llama": StoredFamily(
        backbone=keras_hub.models.Llama3Backbone,
        causal_lm=keras_hub.models.Llama3CausalLM,
        preprocessor=keras_hub.models.Llama3CausalLMPreprocessor,
        read_config=_read_llama,
        write_config=_write_llama,
        weights=_weights,
        general=general_family(_read_llama, _write_llama, _weights),
    ),
    "mistral": StoredFamily(
        backbone=keras_hub.models.MistralBackbone,
        causal_lm=keras_hub.models.MistralCausalLM,
        preprocessor=keras_hub.models.MistralCausalLMPreprocessor,
        read_config=_read_mistral,
        write_config=_write_mistral,
        weights=_weights,
        general=general_family(_read_mistral, _write_mistral, _weights),
    ),
    "qwen2": StoredFamily(
        backbone=keras_hub.models.QwenBackbone,
        causal_lm=keras_hub.models.QwenCausalLM,
        preprocessor=keras_hub.models.QwenCausalLMPreprocessor,
        read_config=_read_qwen2,
        write_config=_write_qwen2,
        weights=_weights,
        general=general_family(_read_qwen2, _write_qwen2, _weights),
    ),
    "qwen3": StoredFamily(
        backbone=keras_hub.models.Qwen3Backbone,
        causal_lm=keras_hub.models.Qwen3CausalLM,
        preprocessor=keras_hub.models.Qwen3CausalLMPreprocessor,
        read_config=_read_qwen3,
        write_config=_write_qwen3,
        weights=_weights,
        general=general_family(_read_qwen3, _write_qwen3, _weights),
    ),
}
