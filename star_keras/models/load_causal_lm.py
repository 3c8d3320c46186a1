"""Loads a causal LM by the name of its preset."""

import pathlib

import keras_hub

from star_keras.models.families import family_of
from star_keras.models.gpt_j.gpt_j_causal_lm import GPTJCausalLM
from star_keras.models.gpt_j.gpt_j_hugging_face import (
    find_hugging_face_gpt_j,
    load_hugging_face_gpt_j,
)
from star_keras.models.hugging_face.load import (
    find_hugging_face,
    load_hugging_face_causal_lm,
)
from star_keras.models.packed_causal_lm import packed_causal_lm
from star_keras.models.preset_files import check_files, check_head
from star_keras.models.presets import preset_names, preset_path
from star_keras.utils.errors import invalid


def load_causal_lm(preset: str, on_weight=None, **kwargs):
    """A `keras_hub.models.CausalLM` from a preset or a Hugging Face directory.

    Args:
        preset: Name of a preset of this package, e.g. `"arithmetic_base"`, or of
            KerasHub, e.g. `"gpt2_base_en"`; directory or handle of a preset; or
            directory or `hf://` handle of a Hugging Face model of one of the types
            gptj, gpt_neox, llama, mistral, mixtral, phi3, qwen2, qwen3, gemma,
            gemma2, gemma3_text, gpt2 and smollm3.
        on_weight: optional callable without arguments, called after each weight of a
            Hugging Face model.
        **kwargs: Arguments of `from_preset`, e.g. `dtype="bfloat16"`.

    Returns:
        A model of the class of the preset, with packed rows and the training step if
        its family is known, see `PackedCausalLM`.

    Raises:
        ValueError: if there is no such preset, a file of it is damaged, its weights do
            not match its configuration, a Hugging Face configuration asks for what
            the model does not compute, or a Hugging Face model is of another type.
            KerasHub reads more types, see the message.
        FileNotFoundError: if the preset lacks a file.

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
            "preset or of a Hugging Face model, or a handle like "
            '"hf://EleutherAI/gpt-j-6b"',
            preset,
            _remedy(pathlib.Path(preset)),
        )
    directory = find_hugging_face_gpt_j(preset)
    if directory is not None:
        return load_hugging_face_gpt_j(
            GPTJCausalLM, directory, on_weight=on_weight, **kwargs
        )
    tokenizer = kwargs.get("preprocessor", "auto") == "auto"
    directory = find_hugging_face(preset, tokenizer)
    if directory is None:
        check_files(preset)
        try:
            model = keras_hub.models.CausalLM.from_preset(preset, **kwargs)
        except ValueError as error:
            raise ValueError(f"KerasHub cannot read {preset!r}: {error}") from error
        if kwargs.get("load_weights", True):
            check_head(model, preset)
    else:
        model = load_hugging_face_causal_lm(directory, on_weight=on_weight, **kwargs)
    return model if family_of(model) is None else packed_causal_lm(model)


def _remedy(path):
    """What to do about a path that is no preset."""
    is_gguf = path.is_file() and path.suffix.lower() == ".gguf"
    if is_gguf or any(path.glob("*.gguf")):
        return (
            f"Convert it first by `python -m experiments.convert --source={path} "
            "--to=hugging_face --output=DIRECTORY`, and pass that directory."
        )
    if path.is_file():
        return f"It is a file. Pass its directory, {path.parent}."
    return "This directory has no config.json. Copy it too." if path.is_dir() else ""
