"""Llama, Mistral, Qwen 2 and Qwen 3: blocks of one pattern."""

import math

import keras_hub

from star_keras.models.general_llama.general_llama_causal_lm import GeneralLlamaCausalLM
from star_keras.models.hugging_face.family import StoredFamily
from star_keras.models.hugging_face.general_llamas import (
    take_bias,
    take_head_dim,
    take_windows,
    write_windows,
)
from star_keras.models.hugging_face.llama_pattern import (
    in_keras_hub,
    read_rope,
    read_sizes,
    weights_beside_blocks,
    write_rope,
    write_sizes,
)
from star_keras.models.hugging_face.stored_weights import (
    reshaped,
    same,
    transposed,
)

# Names in the general form.
ATTENTION_BIASES = {"attention_bias": True, "attention_output_bias": True}


def _read_llama(fields):
    sizes = read_sizes(fields)
    fields.only("rope_interleaved", False)
    return {
        **sizes,
        **read_rope(fields, types=("default", "linear", "llama3", "yarn")),
        **take_head_dim(fields, sizes),
        **take_bias(fields, "attention_bias", **ATTENTION_BIASES),
        **take_bias(fields, "mlp_bias", feedforward_bias=True),
        "tie_word_embeddings": fields.take("tie_word_embeddings", False),
    }


def _read_mistral(fields):
    sizes = read_sizes(fields)
    # transformers' default is 4096; null is no window.
    window = 4096
    if "sliding_window" in fields:
        window = fields.take("sliding_window", None)
    head_dim = fields.take("head_dim", None)
    head_dim = head_dim or sizes["hidden_dim"] // sizes["num_query_heads"]
    sizes |= {"sliding_window": window, "head_dim": head_dim}
    rope, tied = read_rope(fields), fields.take("tie_word_embeddings", False)
    if not tied and "rope_yarn" not in rope:
        return {**sizes, **in_keras_hub(rope)}
    layers = range(sizes["num_layers"]) if window else ()
    return {
        **sizes,
        **rope,
        "window_layers": tuple(layers),
        "tie_word_embeddings": tied,
    }


def _read_qwen2(fields):
    sizes = read_sizes(fields)
    fields.only("use_mrope", False)
    sizes["tie_word_embeddings"] = fields.take("tie_word_embeddings", False)
    general = {
        **take_head_dim(fields, sizes),
        **take_windows(fields, sizes["num_layers"]),
    }
    rope = read_rope(fields)
    if not general and "rope_yarn" not in rope:
        return {**sizes, **in_keras_hub(rope)}
    return {**sizes, **general, **rope, "attention_bias": True}


def _read_qwen3(fields):
    sizes = read_sizes(fields) | {"head_dim": fields.take("head_dim", 128)}
    sizes["tie_word_embeddings"] = fields.take("tie_word_embeddings", False)
    general = {
        **take_bias(fields, "attention_bias", **ATTENTION_BIASES),
        **take_windows(fields, sizes["num_layers"]),
    }
    rope = read_rope(fields)
    if not general and "rope_yarn" not in rope:
        return {**sizes, **in_keras_hub(rope), "sliding_window_size": None}
    return {**sizes, **general, **rope, "query_key_norm": True}


def _write_llama(backbone):
    return {
        **write_sizes(backbone),
        "rope_scaling": write_rope(backbone),
        "attention_bias": getattr(backbone, "attention_bias", False),
        "mlp_bias": getattr(backbone, "feedforward_bias", False),
    }


def _write_mistral(backbone):
    return {
        **write_sizes(backbone),
        "rope_scaling": write_rope(backbone),
        "sliding_window": backbone.sliding_window,
    }


def _write_qwen2(backbone):
    return {
        **write_sizes(backbone),
        "rope_scaling": write_rope(backbone),
        **write_windows(backbone),
    }


def _write_qwen3(backbone):
    return {
        **write_sizes(backbone),
        "rope_scaling": write_rope(backbone),
        **write_windows(backbone),
        "attention_bias": getattr(backbone, "attention_bias", False),
    }


def _weights(backbone):
    table = weights_beside_blocks(backbone)

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
        architecture="LlamaForCausalLM",
        causal_lm=keras_hub.models.Llama3CausalLM,
        read_config=_read_llama,
        write_config=_write_llama,
        weights=_weights,
        general=GeneralLlamaCausalLM,
    ),
    "mistral": StoredFamily(
        architecture="MistralForCausalLM",
        causal_lm=keras_hub.models.MistralCausalLM,
        read_config=_read_mistral,
        write_config=_write_mistral,
        weights=_weights,
        general=GeneralLlamaCausalLM,
    ),
    "qwen2": StoredFamily(
        architecture="Qwen2ForCausalLM",
        causal_lm=keras_hub.models.QwenCausalLM,
        read_config=_read_qwen2,
        write_config=_write_qwen2,
        weights=_weights,
        general=GeneralLlamaCausalLM,
    ),
    "qwen3": StoredFamily(
        architecture="Qwen3ForCausalLM",
        causal_lm=keras_hub.models.Qwen3CausalLM,
        read_config=_read_qwen3,
        write_config=_write_qwen3,
        weights=_weights,
        general=GeneralLlamaCausalLM,
    ),
}
