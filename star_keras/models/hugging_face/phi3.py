"""Phi 3: a Llama whose matrices are stored together."""

import dataclasses

from star_keras.models.general_llama.general_llama_causal_lm import GeneralLlamaCausalLM
from star_keras.models.hugging_face.fields import take_rope
from star_keras.models.hugging_face.general_llamas import take_head_dim
from star_keras.models.hugging_face.llama_pattern import read_sizes
from star_keras.models.hugging_face.llamas import FAMILIES as LLAMAS
from star_keras.models.hugging_face.stored_weights import stacked

_MISTRAL = LLAMAS["mistral"]


def _read_config(fields):
    fields.only("resid_pdrop", 0.0)
    fields.only("embd_pdrop", 0.0)
    fields.only("attention_bias", False)
    fields.only("partial_rotary_factor", 1.0)
    fields.unused("original_max_position_embeddings")  # of other RoPE types
    window = fields.take("sliding_window", None)
    sizes = read_sizes(fields, epsilon=1e-5)
    theta, _, _ = take_rope(fields)
    return {
        **sizes,
        **take_head_dim(fields, sizes),
        "sliding_window": window,
        "window_layers": tuple(range(sizes["num_layers"])) if window else (),
        "rope_max_wavelength": theta,
        "tie_word_embeddings": fields.take("tie_word_embeddings", False),
    }


def _weights(backbone):
    table = _MISTRAL.weights(backbone)
    for i in range(backbone.num_layers):
        name = f"model.layers.{i}"
        for together, parts in (
            ("self_attn.qkv_proj", [f"self_attn.{x}_proj" for x in "qkv"]),
            ("mlp.gate_up_proj", ["mlp.gate_proj", "mlp.up_proj"]),
        ):
            table[f"{name}.{together}.weight"] = stacked(
                [table.pop(f"{name}.{part}.weight") for part in parts]
            )
    return table


FAMILIES = {
    "phi3": dataclasses.replace(
        _MISTRAL,
        architecture="Phi3ForCausalLM",
        causal_lm=GeneralLlamaCausalLM,
        read_config=_read_config,
        weights=_weights,
    )
}
