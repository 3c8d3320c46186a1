"""What models of the pattern of Llama share: sizes, rotation, outer weights."""

from star_keras.models.hugging_face.fields import take_rope
from star_keras.models.hugging_face.stored_weights import same, transposed

# Arguments of Llama 3's scaling, and the fields with their values.
_LLAMA3 = {
    "rope_frequency_adjustment_factor": "factor",
    "rope_low_freq_factor": "low_freq_factor",
    "rope_high_freq_factor": "high_freq_factor",
    "rope_pretraining_sequence_length": "original_max_position_embeddings",
}


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


def read_rope(fields, *, theta=10000.0, types=("default", "linear", "yarn")):
    """Arguments of the rotation, under their names in `GeneralLlamaBackbone`.

    Args:
        fields: The `Fields`.
        theta: float. The family's default of the base. Defaults to `10000.0`.
        types: Types that the family supports. Defaults to those that are linear or
            YaRN.

    Returns:
        dict of the arguments; `rope_yarn` is among them only if it is not `None`.

    Raises:
        ValueError: see `take_rope`.
    """
    theta, kind, parameters = take_rope(fields, types=types, theta=theta)
    rope = {"rope_max_wavelength": theta, "rope_position_scaling_factor": 1.0}
    if kind == "linear":
        rope["rope_position_scaling_factor"] = parameters["factor"]
    elif kind == "llama3":
        rope |= {name: parameters[field] for name, field in _LLAMA3.items()}
    elif kind == "yarn":
        rope["rope_yarn"] = parameters
    return rope


def in_keras_hub(rope):
    """What `read_rope` returns, without YaRN, under the names of KerasHub."""
    return {
        "rope_max_wavelength": rope["rope_max_wavelength"],
        "rope_scaling_factor": rope["rope_position_scaling_factor"],
    }


def write_sizes(backbone):
    """Fields that all backbones have, the inverse of `read_sizes`."""
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


def write_rope(backbone):
    """The value of `rope_scaling`, the inverse of `read_rope`."""
    if yarn := getattr(backbone, "rope_yarn", None):
        return {"rope_type": "yarn", **yarn}
    if getattr(backbone, "rope_low_freq_factor", None) is not None:
        parameters = {field: getattr(backbone, name) for name, field in _LLAMA3.items()}
        return {"rope_type": "llama3", **parameters}
    names = "rope_scaling_factor", "rope_position_scaling_factor"
    factor = next(getattr(backbone, name) for name in names if hasattr(backbone, name))
    return None if factor == 1 else {"rope_type": "linear", "factor": factor}


def weights_beside_blocks(backbone):
    """The embedding, the last norm, and the head of an untied model.

    Args:
        backbone: A `keras_hub.models.Backbone` of the pattern of Llama.

    Returns:
        dict from transformers' name of a tensor to its `StoredWeight`.
    """
    embedding = backbone.token_embedding
    table = {
        "model.embed_tokens.weight": same(embedding.embeddings),
        "model.norm.weight": same(backbone.layer_norm.scale),
    }
    if not embedding.tie_weights:
        table["lm_head.weight"] = transposed(embedding.reverse_embeddings)
    return table
