"""Layers of KerasHub 0.32 that lack the serving seam.

Within an `attention_scope` they call the attention function in force; elsewhere they
compute the same as in KerasHub.
"""

import math

from keras import ops
from keras_hub.src.models.gpt_neo_x.gpt_neo_x_attention import GPTNeoXAttention
from keras_hub.src.models.mixtral.mixtral_attention import CachedMixtralAttention
from keras_hub.src.models.mixtral.mixtral_decoder import (
    MixtralSparseMoeBlock,
    compute_load_balancing_loss,
)
from keras_hub.src.models.phi3.phi3_attention import Phi3Attention
from keras_hub.src.models.smollm3.smollm3_layers import SmolLM3Attention
from keras_hub.src.vllm.attention import vllm_paged_attention

from star_keras.models.attention_scope import (
    adapt,
    padding_mask_in_force,
    positions_in_force,
)


def _rotary(layer, x, positions):
    rotate = layer.rotary_embedding_layer
    outputs = vllm_paged_attention(
        rotate(layer.query_dense(x), positions=positions),
        rotate(layer.key_dense(x), positions=positions),
        layer.value_dense(x),
        layer._inv_norm_factor,
        sliding_window=getattr(layer, "sliding_window", None),  # Phi 3 has none
    )
    return layer.output_dense(outputs)


def _mixtral_experts(
    layer, stock_call, hidden_states, attention_mask=None, training=False
):
    """The experts of each token. Their load-balancing loss excludes padding."""
    del attention_mask  # blocks have none
    outputs, router_logits = stock_call(layer, hidden_states)
    if training:
        loss = compute_load_balancing_loss(
            router_logits,
            layer.num_experts,
            layer.top_k,
            attention_mask=padding_mask_in_force(),
        )
        layer.add_loss(layer.router_aux_loss_coef * loss)
    return outputs, router_logits


def _gpt_neo_x(layer, x, positions):
    size, rotary_dim = layer.attn_head_size, layer.rotary_dim
    query, key, value = ops.split(layer._qkv_dense(x), 3, axis=-1)

    def rotate(x):
        rotated = layer.rotary_embedding_layer(x[..., :rotary_dim], positions=positions)
        return ops.concatenate([rotated, x[..., rotary_dim:]], axis=-1)

    outputs = vllm_paged_attention(
        rotate(query), rotate(key), value, 1 / math.sqrt(size)
    )
    outputs = ops.reshape(outputs, (*ops.shape(x)[:-1], layer.hidden_dim))
    return layer._output_dense(outputs), None


def _smollm3(layer, x, positions):
    def heads(projected, number):
        return ops.reshape(projected, (*ops.shape(x)[:-1], number, layer.head_dim))

    query = heads(layer.q_proj(x), layer.num_attention_heads)
    key = heads(layer.k_proj(x), layer.num_key_value_heads)
    value = heads(layer.v_proj(x), layer.num_key_value_heads)
    if layer.use_rope:
        rotary = layer.rotary_embedding
        # In float32: a bfloat16 angle of position 500 is off by radians.
        angles = ops.cast(positions, "float32")[..., None] * ops.cast(
            rotary.inv_freq, "float32"
        )
        angles = ops.concatenate([angles, angles], axis=-1)[:, :, None, :]
        scale = rotary.attention_scaling
        sin, cos = scale * ops.sin(angles), scale * ops.cos(angles)
        query, key = (_rotate_halves(x, sin, cos) for x in (query, key))
    return layer.o_proj(vllm_paged_attention(query, key, value, layer.scaling))


def _rotate_halves(x, sin, cos):
    one, other = ops.split(x, 2, axis=-1)
    rotated = ops.concatenate([-other, one], axis=-1)
    return x * ops.cast(cos, x.dtype) + rotated * ops.cast(sin, x.dtype)


def _at_positions(attention):
    """`attention(layer, hidden_states, positions)` as `adapt` calls it."""

    def call(layer, stock_call, hidden_states, *args, **kwargs):
        del stock_call, args, kwargs
        positions = ops.reshape(positions_in_force(), (-1, 1))
        return attention(layer, hidden_states, positions)

    return call


adapt(Phi3Attention, _at_positions(_rotary))
adapt(CachedMixtralAttention, _at_positions(_rotary))
adapt(MixtralSparseMoeBlock, _mixtral_experts)
adapt(GPTNeoXAttention, _at_positions(_gpt_neo_x))
adapt(SmolLM3Attention, _at_positions(_smollm3))
