"""Loads a causal LM by the name of its preset."""

import pathlib

import keras_hub

from star_keras.models.gpt_j.gpt_j_causal_lm import GPTJCausalLM
from star_keras.models.gpt_j.gpt_j_hugging_face import find_hugging_face_gpt_j
from star_keras.models.presets import preset_names, preset_path
from star_keras.utils.errors import invalid


def load_causal_lm(preset: str, **kwargs):
    """A `keras_hub.models.CausalLM` from a preset or a Hugging Face GPT-J.

    Args:
        preset: Name of a preset of this package, e.g. `"arithmetic_base"`, or of
            KerasHub, e.g. `"gpt2_base_en"`; directory or handle of a preset; or
            directory or `hf://` handle of a Hugging Face GPT-J.
        **kwargs: Arguments of `from_preset`, e.g. `dtype="bfloat16"`.

    Returns:
        A `GPTJCausalLM` for GPT-J, else the model class of the preset.

    Raises:
        ValueError: if there is no such preset, or its weights do not match its
            configuration.
        FileNotFoundError: if the preset lacks a file.
        ImportError: if the weights are PyTorch files and PyTorch is missing.

    Example:
    ```python
    model = load_causal_lm("arithmetic_base")
    model.generate("Input:\\n1 2 + 3 4\\nTarget:\\n")
    ```
    """
    preset = preset_path(preset)
    known = "://" in preset or preset in keras_hub.models.CausalLM.presets
    if not known and not (pathlib.Path(preset) / "config.json").is_file():
        raise invalid(
            "preset",
            f"one of {preset_names()}, a preset of KerasHub, the directory of a "
            "preset or of a Hugging Face GPT-J, or a handle like "
            '"hf://EleutherAI/gpt-j-6b"',
            preset,
        )
    is_gpt_j = find_hugging_face_gpt_j(preset) is not None
    kind = GPTJCausalLM if is_gpt_j else keras_hub.models.CausalLM
    return kind.from_preset(preset, **kwargs)
