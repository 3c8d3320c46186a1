"""Convert checkpoints: Keras presets, Hugging Face, GGUF, mesh-transformer-jax.

    python -m experiments.convert --source=SmolLM2-135M-Instruct \\
        --to=preset --output=presets/smollm2 --dtype=bfloat16
    python -m experiments.convert --source=model.Q4_1.gguf --to=hugging_face \\
        --output=smollm2_hf
    python -m experiments.convert --source=hf://EleutherAI/gpt-j-6b \\
        --to=preset --output=presets/gpt_j_6b --dtype=bfloat16
    python -m experiments.convert --source=step_383500 --to=hugging_face \\
        --output=gpt_j_hf --tokenizer=gpt_j_tokenizer
    python -m experiments.convert --source=runs/cqa/preset --to=mesh_transformer \\
        --shards=4 --output=slim/step_1

The check sum that it prints is of the logits of a fixed row of token ids; the
same numbers before and after mean the same model. (mesh_transformer, a format of
GPT-J alone, is written in bfloat16, and its sums differ by as much as that rounds.)
"""

import dataclasses
import tempfile
from pathlib import Path

from absl import app
from etils import epath

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import load_libraries
from experiments.outputs import make_new_directory, save_directory
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertSettings(Settings):
    """What is read, and what is written."""

    source: str | None = setting(
        None,
        "A preset, a Hugging Face or mesh-transformer-jax directory, a .gguf file or "
        "its directory, or hf://.",
        is_needed=True,
    )
    to: str = setting(
        "preset",
        "Format to write.",
        choices=("preset", "hugging_face", "mesh_transformer"),
    )
    output: str | None = setting(
        None, "Directory to write, new or empty.", is_path=True, is_needed=True
    )
    dtype: str = setting(
        "float32", "Of the weights.", choices=("float32", "bfloat16", "float16")
    )
    mesh: str | None = setting(None, 'Load over devices, e.g. "batch:1,model:8".')
    shards: int | None = setting(
        None, "--to=mesh_transformer: shards to write. Default: 8.", at_least=1
    )
    mesh_config: str | None = setting(
        None,
        "--source of mesh-transformer-jax: its JSON file. Default: GPT-J 6B's.",
        is_path=True,
    )
    tokenizer: str | None = setting(
        None,
        "--source of mesh-transformer-jax: directory with vocab.json and merges.txt.",
        is_path=True,
    )

    def check(self):
        if self.shards is not None and self.to != "mesh_transformer":
            rule = f"`None` with to={self.to!r}, which has no shards"
            raise invalid("shards", rule, self.shards, "Leave it out.")


define_flags(ConvertSettings)

GPT_J_6B = {
    "layers": 28,
    "d_model": 4096,
    "n_heads": 16,
    "n_vocab": 50400,
    "pe_rotary_dims": 64,
    "seq": 2048,
}


def progress_bar():
    """A callable that counts weights."""
    import keras

    bar = keras.utils.Progbar(None, unit_name="weight")
    return lambda: bar.add(1)


def is_mesh_transformer(source):
    """Whether a path is a directory of mesh-transformer-jax."""
    return (Path(source).expanduser() / "shard_0").is_dir()


def check_flags_of_the_source(settings):
    """Raise a `ValueError` for flags that only mesh-transformer-jax has."""
    if is_mesh_transformer(settings.source):
        return
    for name in ("mesh_config", "tokenizer"):
        value = getattr(settings, name)
        if value is not None:
            source = f"source={settings.source!r}"
            rule = f"`None` with {source}, no directory of mesh-transformer-jax"
            raise invalid(name, rule, value, "Leave it out.")


def load(settings):
    """The model of `--source`, whatever its format."""
    from star_keras import models
    from star_keras.models.gpt_j.gpt_j_hugging_face import load_gpt_j_tokenizer
    from star_keras.models.hugging_face.gguf_files import dequantize, find_gguf
    from star_keras.models.presets import preset_path

    source = preset_path(settings.source)
    gguf = find_gguf(source)
    if gguf is not None:
        with tempfile.TemporaryDirectory() as directory:
            dequantize(gguf, directory)
            return load(dataclasses.replace(settings, source=directory))
    if is_mesh_transformer(source):
        preprocessor = None
        if settings.tokenizer:
            tokenizer = load_gpt_j_tokenizer(settings.tokenizer)
            if tokenizer is None:
                raise app.UsageError(
                    f"--tokenizer={settings.tokenizer} has no vocab.json and "
                    "merges.txt."
                )
            preprocessor = models.GPTJCausalLMPreprocessor(tokenizer)
        return models.load_mesh_transformer(
            source,
            settings.mesh_config or GPT_J_6B,
            preprocessor,
            progress_bar(),
            dtype=settings.dtype,
        )
    if not (Path(source) / "config.json").is_file() and "://" not in source:
        raise app.UsageError(
            f"--source={source} is no checkpoint. Expected a directory with "
            "config.json, shard_0 or a GGUF file, or a handle like "
            "hf://EleutherAI/gpt-j-6b."
        )
    return models.load_causal_lm(source, on_weight=progress_bar(), dtype=settings.dtype)


def logits_sums(model):
    """Sum and absolute sum of the logits of a fixed row of token ids."""
    import keras
    import numpy as np

    length = min(32, getattr(model.backbone, "max_sequence_length", 32))
    token_ids = (
        np.arange(1, length + 1)[None]
        * 7919
        % min(model.backbone.vocabulary_size, 50257)
    )
    logits = model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    logits = np.asarray(keras.ops.cast(logits, "float32"), "float64")
    return logits.sum(), np.abs(logits).sum()


def main(argv):
    (settings,) = from_flags(argv, ConvertSettings)
    check_flags_of_the_source(settings)
    make_new_directory("output", settings.output)
    say_hello(f"{settings.source} to {settings.to}")
    load_libraries()
    import keras

    from star_keras import distribution, models

    def save(path):
        if settings.to == "preset":
            model.save_to_preset(path)
        elif settings.to == "hugging_face":
            models.save_hugging_face(model, path)
        else:
            models.save_mesh_transformer(model, path, shards=settings.shards or 8)

    if settings.mesh:
        mesh = distribution.model_parallel(settings.mesh)
        keras.distribution.set_distribution(mesh)
    model = load(settings)
    save_directory(save, epath.Path(settings.output))
    print("\nlogits: sum {:.6g}, sum of absolutes {:.6g}".format(*logits_sums(model)))
    print(f"Written: {settings.output} ({settings.to}).")


if __name__ == "__main__":
    run_main(main)
