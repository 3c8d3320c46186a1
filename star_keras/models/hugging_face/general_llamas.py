"""Directories of Llamas, Mistrals and Qwens that KerasHub's classes do not compute."""

from star_keras.models.general_llama.general_llama_backbone import GeneralLlamaBackbone

_FULL = ("full_attention",)


def general_model_type(backbone):
    """The `model_type` of transformers that a `GeneralLlamaBackbone` is."""
    if backbone.layers_without_rope:
        return "smollm3"
    if backbone.query_key_norm:
        return "qwen3"
    if backbone.attention_bias and not backbone.attention_output_bias:
        return "qwen2"
    if backbone.window_layers:
        is_mistral = backbone.tie_word_embeddings or backbone.rope_yarn
        return "mistral" if is_mistral else "phi3"
    return "llama"


def take_head_dim(fields, sizes):
    """Arguments for a size of heads other than `hidden_dim / num_query_heads`."""
    usual = sizes["hidden_dim"] / sizes["num_query_heads"]
    head_dim = fields.take("head_dim", None)
    return {} if head_dim in (None, usual) else {"head_dim": head_dim}


def take_bias(fields, name, **arguments):
    """`arguments` if the field `name` asks for biases, else none."""
    return arguments if fields.take(name, False) else {}


def take_windows(fields, num_layers):
    """Arguments for the layers with a window: those behind `max_window_layers`."""
    window = 4096
    if "sliding_window" in fields:
        window = fields.take("sliding_window", None)
    if not fields.take("use_sliding_window", False):
        window = None
    first = fields.take("max_window_layers", 28)
    types = fields.take("layer_types", None)
    if types is None:
        layers = range(first, num_layers) if window else ()
    else:
        valid = ("full_attention", "sliding_attention") if window else _FULL
        if set(types) - set(valid) or len(types) != num_layers:
            raise fields.refused("layer_types", types, valid)
        layers = [i for i, kind in enumerate(types) if kind not in _FULL]
    if not layers:
        return {}
    return {"sliding_window": window, "window_layers": tuple(layers)}


def write_windows(backbone):
    """Fields of the layers with a window."""
    if not isinstance(backbone, GeneralLlamaBackbone):
        return {"use_sliding_window": False}
    layers = range(backbone.num_layers)
    windows = set(backbone.window_layers)
    # Readers of the older field see the layers from this one on.
    first = min(windows, default=backbone.num_layers)
    return {
        "use_sliding_window": bool(windows),
        "sliding_window": backbone.sliding_window,
        "max_window_layers": first,
        "layer_types": [
            "sliding_attention" if i in windows else "full_attention" for i in layers
        ],
    }
