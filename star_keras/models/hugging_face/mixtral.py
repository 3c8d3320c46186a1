"""Mixtral: a Mistral whose MLP is several experts, two of which see each token."""

import keras_hub

from star_keras.models.hugging_face.family import StoredFamily
from star_keras.models.hugging_face.llama_pattern import (
    in_keras_hub,
    read_rope,
    read_sizes,
    weights_beside_blocks,
    write_rope,
    write_sizes,
)
from star_keras.models.hugging_face.stored_weights import (
    same,
    transposed,
    transposed_row,
)


def _read_config(fields):
    sizes = read_sizes(fields, epsilon=1e-5)
    fields.only("head_dim", None, sizes["hidden_dim"] / sizes["num_query_heads"])
    fields.only("tie_word_embeddings", False)
    fields.only("router_jitter_noise", 0.0)
    num_experts = fields.take("num_local_experts", 8)
    top_k = fields.take("num_experts_per_tok", 2)
    if top_k > num_experts:
        raise fields.refused(
            "num_experts_per_tok", top_k, (f"at most {num_experts} (all experts)",)
        )
    rope = read_rope(fields, theta=1000000.0, types=("default", "linear"))
    coefficient = fields.take("router_aux_loss_coef", 0.001)
    # transformers adds the loss where it returns the logits of the router.
    has_loss = fields.take("output_router_logits", False)
    return {
        **sizes,
        "num_experts": num_experts,
        "top_k": top_k,
        "sliding_window": fields.take("sliding_window", None),
        "router_aux_loss_coef": coefficient if has_loss else 0.0,
        **in_keras_hub(rope),
    }


def _write_config(backbone):
    return {
        **write_sizes(backbone),
        "rope_scaling": write_rope(backbone),
        "sliding_window": backbone.sliding_window,
        "num_local_experts": backbone.num_experts,
        "num_experts_per_tok": backbone.top_k,
        "output_router_logits": backbone.router_aux_loss_coef > 0,
        "router_aux_loss_coef": backbone.router_aux_loss_coef,
    }


def _weights(backbone):
    table = weights_beside_blocks(backbone)
    for i, block in enumerate(backbone.transformer_layers):
        attention, experts = block._self_attention_layer, block._sparse_moe_block
        name = f"model.layers.{i}"
        dense = {
            "self_attn.q_proj": attention.query_dense,
            "self_attn.k_proj": attention.key_dense,
            "self_attn.v_proj": attention.value_dense,
            "block_sparse_moe.gate": experts._sparse_feedforward_gate_dense,
        }
        norms = {
            "input_layernorm": block._self_attention_layernorm,
            "post_attention_layernorm": block._feedforward_layernorm,
        }
        banks = {
            "w1": experts.expert_bank._expert_feedforward_gate_dense,
            "w2": experts.expert_bank._expert_feedforward_output_dense,
            "w3": experts.expert_bank._expert_feedforward_intermediate_dense,
        }
        table |= {f"{name}.{k}.weight": transposed(v.kernel) for k, v in dense.items()}
        table |= {f"{name}.{k}.weight": same(v.scale) for k, v in norms.items()}
        table[f"{name}.self_attn.o_proj.weight"] = transposed(
            attention.output_dense.kernel, input_axes=2
        )
        table |= {
            f"{name}.block_sparse_moe.experts.{row}.{k}.weight": transposed_row(v, row)
            for k, v in banks.items()
            for row in range(backbone.num_experts)
        }
    return table


FAMILIES = {
    "mixtral": StoredFamily(
        architecture="MixtralForCausalLM",
        causal_lm=keras_hub.models.MixtralCausalLM,
        read_config=_read_config,
        write_config=_write_config,
        weights=_weights,
    ),
}
