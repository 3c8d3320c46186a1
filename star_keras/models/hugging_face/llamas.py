"""Llama, Mistral, Qwen 2 and Qwen 3: blocks of one pattern."""

import keras_hub

from star_keras.models.hugging_face.family import StoredFamily
from star_keras.models.hugging_face.fields import take_rope
from star_keras.models.hugging_face.stored_weights import (
    reshaped,
    same,
    transposed,
)


def _sizes(fields):
    """Arguments that all four backbones have, their default being transformers'."""
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
        "layer_norm_epsilon": fields.take("rms_norm_eps", 1e-6),
    }


def _refuse_other_head_dim(fields, sizes):
    head_dim = sizes["hidden_dim"] // sizes["num_query_heads"]
    fields.only("head_dim", None, head_dim)


def _refuse_windows(fields, num_layers):
    # KerasHub's fused attention ignores the window.
    windows = fields.take("use_sliding_window", False)
    first = fields.take("max_window_layers", 28)
    fields.unused("sliding_window")
    types = fields.take("layer_types", None)
    if types is not None:
        if set(types) - {"full_attention"}:
            raise fields.refused("layer_types", types, ("full_attention",))
    elif windows and first < num_layers:
        raise fields.refused("use_sliding_window", windows, (False,))


def _read_llama(fields):
    sizes = _sizes(fields)
    fields.only("attention_bias", False)
    fields.only("mlp_bias", False)
    fields.only("rope_interleaved", False)
    _refuse_other_head_dim(fields, sizes)
    theta, kind, parameters = take_rope(fields, types=("default", "llama3"))
    scaling = {}
    if kind == "llama3":
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
        "rope_max_wavelength": theta,
        "tie_word_embeddings": fields.take("tie_word_embeddings", False),
    }


def _linear_rope(fields):
    theta, _, parameters = take_rope(fields, types=("default", "linear"))
    return {
        "rope_max_wavelength": theta,
        "rope_scaling_factor": parameters.get("factor", 1.0),
    }


def _read_mistral(fields):
    sizes = _sizes(fields)
    # transformers' default is 4096; null is no window.
    window = 4096
    if "sliding_window" in fields:
        window = fields.take("sliding_window", None)
    fields.only("tie_word_embeddings", False)
    return {
        **sizes,
        **_linear_rope(fields),
        "sliding_window": window,
        "head_dim": fields.take("head_dim", None),
    }


def _read_qwen2(fields):
    sizes = _sizes(fields)
    fields.only("use_mrope", False)
    _refuse_other_head_dim(fields, sizes)
    _refuse_windows(fields, sizes["num_layers"])
    return {
        **sizes,
        **_linear_rope(fields),
        "tie_word_embeddings": fields.take("tie_word_embeddings", False),
    }


def _read_qwen3(fields):
    sizes = _sizes(fields)
    fields.only("attention_bias", False)
    _refuse_windows(fields, sizes["num_layers"])
    return {
        **sizes,
        **_linear_rope(fields),
        "head_dim": fields.take("head_dim", 128),
        "tie_word_embeddings": fields.take("tie_word_embeddings", False),
        "sliding_window_size": None,
    }


def _write_sizes(backbone, head_dim=None):
    head_dim = head_dim or backbone.hidden_dim // backbone.num_query_heads
    return {
        "hidden_act": "silu",
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_query_heads,
        "num_key_value_heads": backbone.num_key_value_heads,
        "head_dim": head_dim,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "rms_norm_eps": backbone.layer_norm_epsilon,
        "rope_theta": backbone.rope_max_wavelength,
        "tie_word_embeddings": backbone.token_embedding.tie_weights,
    }


def _write_llama(backbone):
    scaling = None
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
    biases = {"attention_bias": False, "mlp_bias": False}
    return {**_write_sizes(backbone), **biases, "rope_scaling": scaling}


def _write_linear_rope(backbone):
    factor = backbone.rope_scaling_factor
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}


def _write_mistral(backbone):
    return {
        **_write_sizes(backbone, backbone.head_dim),
        "rope_scaling": _write_linear_rope(backbone),
        "sliding_window": backbone.sliding_window,
    }


def _write_qwen2(backbone):
    sizes = _write_sizes(backbone)
    del sizes["head_dim"]
    return {
        **sizes,
        "rope_scaling": _write_linear_rope(backbone),
        "use_sliding_window": False,
    }


def _write_qwen3(backbone):
    return {
        **_write_sizes(backbone, backbone.head_dim),
        "rope_scaling": _write_linear_rope(backbone),
        "use_sliding_window": False,
        "attention_bias": False,
    }


def _weights(backbone, *, bias=False, query_key_norm=False):
    embedding = backbone.token_embedding
    table = {
        "model.embed_tokens.weight": same(embedding.embeddings),
        "model.norm.weight": same(backbone.layer_norm.scale),
    }
    if not embedding.tie_weights:
        table["lm_head.weight"] = transposed(embedding.reverse_embeddings)
    for i, block in enumerate(backbone.transformer_layers):
        attention = block._self_attention_layer
        norm, name = block._self_attention_layernorm, f"model.layers.{i}"
        table |= {
            f"{name}.input_layernorm.weight": same(norm.scale),
            f"{name}.post_attention_layernorm.weight": same(
                block._feedforward_layernorm.scale
            ),
            f"{name}.self_attn.o_proj.weight": transposed(
                attention._output_dense.kernel, input_axes=2
            ),
            f"{name}.mlp.gate_proj.weight": transposed(
                block._feedforward_gate_dense.kernel
            ),
            f"{name}.mlp.up_proj.weight": transposed(
                block._feedforward_intermediate_dense.kernel
            ),
            f"{name}.mlp.down_proj.weight": transposed(
                block._feedforward_output_dense.kernel
            ),
        }
        for letter, dense in (
            ("q", attention._query_dense),
            ("k", attention._key_dense),
            ("v", attention._value_dense),
        ):
            projection = f"{name}.self_attn.{letter}_proj"
            table[f"{projection}.weight"] = transposed(dense.kernel)
            if bias:
                table[f"{projection}.bias"] = reshaped(dense.bias, (_size(dense.bias),))
        if query_key_norm:
            table |= {
                f"{name}.self_attn.q_norm.weight": same(
                    attention._query_dense_layer_norm.scale
                ),
                f"{name}.self_attn.k_norm.weight": same(
                    attention._key_dense_layer_norm.scale
                ),
            }
    return table


def _size(variable):
    heads, head_dim = variable.shape
    return heads * head_dim


FAMILIES = {
    "llama": StoredFamily(
        backbone=keras_hub.models.Llama3Backbone,
        causal_lm=keras_hub.models.Llama3CausalLM,
        preprocessor=keras_hub.models.Llama3CausalLMPreprocessor,
        read_config=_read_llama,
        write_config=_write_llama,
        weights=_weights,
    ),
    "mistral": StoredFamily(
        backbone=keras_hub.models.MistralBackbone,
        causal_lm=keras_hub.models.MistralCausalLM,
        preprocessor=keras_hub.models.MistralCausalLMPreprocessor,
        read_config=_read_mistral,
        write_config=_write_mistral,
        weights=_weights,
    ),
    "qwen2": StoredFamily(
        backbone=keras_hub.models.QwenBackbone,
        causal_lm=keras_hub.models.QwenCausalLM,
        preprocessor=keras_hub.models.QwenCausalLMPreprocessor,
        read_config=_read_qwen2,
        write_config=_write_qwen2,
        weights=lambda backbone: _weights(backbone, bias=True),
    ),
    "qwen3": StoredFamily(
        backbone=keras_hub.models.Qwen3Backbone,
        causal_lm=keras_hub.models.Qwen3CausalLM,
        preprocessor=keras_hub.models.Qwen3CausalLMPreprocessor,
        read_config=_read_qwen3,
        write_config=_write_qwen3,
        weights=lambda backbone: _weights(backbone, query_key_norm=True),
    ),
}
