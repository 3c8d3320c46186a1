"""Gemma, Gemma 2 and Gemma 3 (text)."""

import keras_hub

from star_keras.models.hugging_face.family import StoredFamily
from star_keras.models.hugging_face.fields import rope, take_rope
from star_keras.models.hugging_face.stored_weights import (
    heads_first,
    same,
    transposed,
)

# KerasHub's blocks have these built in.
_EPSILON = 1e-6
_THETA = 10000.0
_GLOBAL_THETA = 1000000.0


def _sizes(fields):
    fields.only("rms_norm_eps", _EPSILON)
    fields.only("attention_bias", False)
    fields.only("attention_dropout", 0.0)
    fields.unused("max_position_embeddings")  # the tokenizer keeps it
    fields.only("tie_word_embeddings", True)
    fields.only("use_bidirectional_attention", None, False)
    return {
        "vocabulary_size": fields.take("vocab_size"),
        "num_layers": fields.take("num_hidden_layers"),
        "num_query_heads": fields.take("num_attention_heads"),
        "num_key_value_heads": fields.take("num_key_value_heads"),
        "hidden_dim": fields.take("hidden_size"),
        "intermediate_dim": fields.take("intermediate_size"),
        "head_dim": fields.take("head_dim", 256),
        "layer_norm_epsilon": _EPSILON,
    }


def _refuse_other_theta(fields):
    theta, _, _ = take_rope(fields)
    if theta != _THETA:
        raise fields.refused("rope_theta", theta, (_THETA,))


def _refuse_other_layers(fields, sizes, period):
    """Refuse layers that are not those of KerasHub: one in `period` sees all."""
    types = [
        "full_attention" if i % period == period - 1 else "sliding_attention"
        for i in range(sizes["num_layers"])
    ]
    fields.only("layer_types", None, types)


def _scale(fields, sizes):
    """The argument for the factor of the queries, one of two of KerasHub."""
    scale = fields.take("query_pre_attn_scalar", 256)
    valid = sizes["head_dim"], sizes["hidden_dim"] // sizes["num_query_heads"]
    if scale not in valid:
        raise fields.refused("query_pre_attn_scalar", scale, valid)
    return {"query_head_dim_normalize": scale == sizes["head_dim"]}


def _read_gemma(fields):
    sizes = _sizes(fields)
    # The released files say "gelu" and mean its approximation.
    fields.only("hidden_act", "gelu_pytorch_tanh", "gelu")
    fields.only("hidden_activation", None, "gelu_pytorch_tanh")
    _refuse_other_theta(fields)
    # KerasHub counts the gate and the other projection.
    return sizes | {"intermediate_dim": 2 * sizes["intermediate_dim"]}


def _read_gemma2(fields):
    sizes = _sizes(fields)
    fields.only("hidden_activation", "gelu_pytorch_tanh")
    fields.unused("hidden_act")  # transformers reads the other one
    _refuse_other_theta(fields)
    _refuse_other_layers(fields, sizes, period=2)
    return {
        **sizes,
        **_scale(fields, sizes),
        "intermediate_dim": 2 * sizes["intermediate_dim"],
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "attention_logit_soft_cap": _soft_cap(fields, "attn_logit_softcapping", 50.0),
        "final_logit_soft_cap": _soft_cap(fields, "final_logit_softcapping", 30.0),
        "use_sliding_window_attention": True,
        "sliding_window_size": fields.take("sliding_window", 4096),
    }


def _soft_cap(fields, name, default):
    # null is no cap, and no field is the default.
    return fields.take(name, None) if name in fields else default


def _read_gemma3(fields):
    sizes = _sizes(fields)
    fields.only("hidden_activation", "gelu_pytorch_tanh")
    fields.unused("hidden_act")
    fields.only("sliding_window_pattern", 6)
    _refuse_other_layers(fields, sizes, period=6)
    # KerasHub's block has no other factor of the queries, whatever its argument says.
    scale = fields.take("query_pre_attn_scalar", 256)
    if scale != sizes["head_dim"]:
        raise fields.refused("query_pre_attn_scalar", scale, (sizes["head_dim"],))
    # transformers reads it and does not use it.
    fields.only("attn_logit_softcapping", None)
    return {
        **sizes,
        "query_head_dim_normalize": True,
        "image_size": None,
        "vision_encoder": None,
        "use_query_key_norm": True,
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "attention_logit_soft_cap": None,
        "final_logit_soft_cap": fields.take("final_logit_softcapping", None),
        "use_sliding_window_attention": True,
        "sliding_window_size": fields.take("sliding_window", 4096),
        "global_rope_scaling_factor": _global_rope_factor(fields),
    }


def _global_rope_factor(fields):
    """The factor of the layers that see all. The others are not scaled."""
    theta = fields.take("rope_theta", _GLOBAL_THETA)
    local_theta = fields.take("rope_local_base_freq", _THETA)
    older = fields.take("rope_scaling", None)
    newer = dict(fields.take("rope_parameters", {}))
    local, name = newer.pop("sliding_attention", None), "rope_parameters"
    whole = newer.pop("full_attention", None)
    if newer:
        raise fields.refused(name, newer, ("sliding_attention and full_attention",))
    local_theta, _, _ = rope(fields, name, local, ("default",), local_theta)
    if older:
        name, whole = "rope_scaling", older
    theta, _, parameters = rope(fields, name, whole, ("default", "linear"), theta)
    if local_theta != _THETA:
        raise fields.refused("rope_local_base_freq", local_theta, (_THETA,))
    if theta != _GLOBAL_THETA:
        raise fields.refused("rope_theta", theta, (_GLOBAL_THETA,))
    return parameters.get("factor", 1.0)


def _write_sizes(backbone):
    return {
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_query_heads,
        "num_key_value_heads": backbone.num_key_value_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim // 2,
        "head_dim": backbone.head_dim,
        "rms_norm_eps": backbone.layer_norm_epsilon,
        "rope_theta": _THETA,
        "tie_word_embeddings": True,
        "attention_bias": False,
    }


def _write_gemma(backbone):
    activation = "gelu_pytorch_tanh"
    return {
        **_write_sizes(backbone),
        "hidden_act": activation,
        "hidden_activation": activation,
    }


def _write_gemma2(backbone):
    scale = backbone.head_dim
    if not backbone.query_head_dim_normalize:
        scale = backbone.hidden_dim // backbone.num_query_heads
    return {
        **_write_sizes(backbone),
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scale,
        "attn_logit_softcapping": backbone.attention_logit_soft_cap,
        "final_logit_softcapping": backbone.final_logit_soft_cap,
        "sliding_window": backbone.sliding_window_size,
    }


def _write_gemma3(backbone):
    factor = backbone.global_rope_scaling_factor
    scaling = None if factor == 1 else {"rope_type": "linear", "factor": factor}
    return {
        **_write_gemma2(backbone),
        "intermediate_size": backbone.intermediate_dim,
        "rope_theta": _GLOBAL_THETA,
        "rope_local_base_freq": _THETA,
        "rope_scaling": scaling,
        "sliding_window_pattern": 6,
    }


def _weights(backbone):
    table = {
        "model.embed_tokens.weight": same(backbone.token_embedding.embeddings),
        "model.norm.weight": same(backbone.layer_norm.scale),
    }
    for i, block in enumerate(backbone.transformer_layers):
        attention, name = block.attention, f"model.layers.{i}"
        norms = {"input_layernorm": block.pre_attention_norm}
        if block.use_post_ffw_norm:
            norms |= {
                "post_attention_layernorm": block.post_attention_norm,
                "pre_feedforward_layernorm": block.pre_ffw_norm,
                "post_feedforward_layernorm": block.post_ffw_norm,
            }
        else:
            norms["post_attention_layernorm"] = block.pre_ffw_norm
        if getattr(attention, "use_query_key_norm", False):
            norms |= {
                "self_attn.q_norm": attention.query_norm,
                "self_attn.k_norm": attention.key_norm,
            }
        for letter, dense in (
            ("q", attention.query_dense),
            ("k", attention.key_dense),
            ("v", attention.value_dense),
        ):
            table[f"{name}.self_attn.{letter}_proj.weight"] = heads_first(dense.kernel)
        table |= {
            **{f"{name}.{key}.weight": same(norm.scale) for key, norm in norms.items()},
            f"{name}.self_attn.o_proj.weight": transposed(
                attention.output_dense.kernel, input_axes=2
            ),
            f"{name}.mlp.gate_proj.weight": transposed(block.gating_ffw.kernel),
            f"{name}.mlp.up_proj.weight": transposed(block.gating_ffw_2.kernel),
            f"{name}.mlp.down_proj.weight": transposed(block.ffw_linear.kernel),
        }
    return table


FAMILIES = {
    "gemma": StoredFamily(
        architecture="GemmaForCausalLM",
        causal_lm=keras_hub.models.GemmaCausalLM,
        read_config=_read_gemma,
        write_config=_write_gemma,
        weights=_weights,
    ),
    "gemma2": StoredFamily(
        architecture="Gemma2ForCausalLM",
        causal_lm=keras_hub.models.GemmaCausalLM,
        read_config=_read_gemma2,
        write_config=_write_gemma2,
        weights=_weights,
    ),
    "gemma3_text": StoredFamily(
        architecture="Gemma3ForCausalLM",
        causal_lm=keras_hub.models.Gemma3CausalLM,
        read_config=_read_gemma3,
        write_config=_write_gemma3,
        weights=_weights,
    ),
}
