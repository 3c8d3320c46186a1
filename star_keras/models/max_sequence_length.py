"""The longest sequence of a causal LM."""


def max_sequence_length(model) -> int | None:
    """The longest sequence in tokens that a causal LM is made for.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.

    Returns:
        That of its backbone, else that of its tokenizer; `None` if neither says.
    """
    parts = model.backbone, model.preprocessor.tokenizer
    limits = (getattr(part, "max_sequence_length", None) for part in parts)
    return next((limit for limit in limits if limit), None)
