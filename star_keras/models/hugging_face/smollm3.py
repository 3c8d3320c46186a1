"""SmolLM 3: a Llama with layers whose queries and keys are not rotated."""

import dataclasses

from star_keras.models.general_llama.general_llama_causal_lm import GeneralLlamaCausalLM
from star_keras.models.hugging_face.general_llamas import take_bias, take_head_dim
from star_keras.models.hugging_face.llama_pattern import read_rope, read_sizes
from star_keras.models.hugging_face.llamas import ATTENTION_BIASES
from star_keras.models.hugging_face.llamas import FAMILIES as LLAMAS

_LLAMA = LLAMAS["llama"]


def _read_config(fields):
    sizes = read_sizes(fields)
    num_layers = sizes["num_layers"]
    fields.only("use_sliding_window", False)
    fields.only("layer_types", None, ["full_attention"] * num_layers)
    fields.unused("sliding_window", "max_window_layers")
    interval = fields.take("no_rope_layer_interval", 4)
    # A one stands for rotation.
    rotated = fields.take(
        "no_rope_layers", [int((i + 1) % interval > 0) for i in range(num_layers)]
    )
    is_list = isinstance(rotated, list) and len(rotated) == num_layers
    if not is_list or any(one not in (0, 1) for one in rotated):
        raise ValueError(
            f"{fields.source}: expected `no_rope_layers` to have a 0 or a 1 for each "
            f"of the {num_layers} layers. Received: no_rope_layers={rotated!r}."
        )
    return {
        **sizes,
        **take_head_dim(fields, sizes),
        **take_bias(fields, "attention_bias", **ATTENTION_BIASES),
        **take_bias(fields, "mlp_bias", feedforward_bias=True),
        "layers_without_rope": tuple(i for i, one in enumerate(rotated) if not one),
        **read_rope(fields, theta=2000000.0),
        "tie_word_embeddings": fields.take("tie_word_embeddings", True),
    }


def _write_config(backbone):
    without = set(backbone.layers_without_rope)
    return {
        **_LLAMA.write_config(backbone),
        "no_rope_layers": [int(i not in without) for i in range(backbone.num_layers)],
        "use_sliding_window": False,
    }


FAMILIES = {
    "smollm3": dataclasses.replace(
        _LLAMA,
        architecture="SmolLM3ForCausalLM",
        causal_lm=GeneralLlamaCausalLM,
        read_config=_read_config,
        write_config=_write_config,
    )
}
