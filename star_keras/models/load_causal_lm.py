"""Any causal LM by the name of its preset."""

import keras_hub

from star_keras.models.gpt_j_causal_lm import GPTJCausalLM
from star_keras.models.gpt_j_hugging_face import find_hugging_face_gpt_j


def load_causal_lm(preset: str, **kwargs):
    """A `keras_hub.models.CausalLM` from a preset or a Hugging Face GPT-J.

    Args:
        preset: Path or handle of a preset; for GPT-J a Hugging Face directory
            or `hf://` handle as well.
        **kwargs: Arguments of `from_preset`, e.g. `dtype="bfloat16"`.

    Raises:
        ValueError: if there is no such preset, or its weights do not fit.
        FileNotFoundError: if it lacks a file.
    """
    is_gpt_j = find_hugging_face_gpt_j(preset) is not None
    kind = GPTJCausalLM if is_gpt_j else keras_hub.models.CausalLM
    return kind.from_preset(preset, **kwargs)
