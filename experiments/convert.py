"""Convert GPT-J checkpoints: Keras presets, Hugging Face, mesh-transformer-jax.

    python -m experiments.convert --source=hf://EleutherAI/gpt-j-6b \
        --to=preset --output=presets/gpt_j_6b --dtype=bfloat16
    python -m experiments.convert --source=step_383500 --to=hugging_face \
        --output=gpt_j_hf --tokenizer=gpt_j_tokenizer
    python -m experiments.convert --source=runs/cqa/preset --to=mesh_transformer \
        --shards=4 --output=slim/step_1

The check sum that it prints is of the logits of a fixed row of token ids; the
same numbers before and after mean the same model. (mesh_transformer is written
in bfloat16, and its sums differ by as much as that rounds.)
"""

from pathlib import Path

import keras
import numpy as np
from absl import app, flags

from star_keras import distribution
from star_keras.models import (
    GPTJCausalLM,
    GPTJCausalLMPreprocessor,
    find_hugging_face_gpt_j,
    load_hugging_face,
    load_mesh_transformer,
    load_tokenizer,
    save_hugging_face,
    save_mesh_transformer,
)

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "source", None, "A preset, a Hugging Face or mesh-transformer-jax directory, hf://."
)
flags.DEFINE_enum(
    "to", None, ["preset", "hugging_face", "mesh_transformer"], "What to write."
)
flags.DEFINE_string("output", None, "Directory to write.")
flags.DEFINE_string("dtype", "float32", "Of the weights, e.g. bfloat16.")
flags.DEFINE_string("mesh", None, 'Load over devices, e.g. "batch:1,model:8".')
flags.DEFINE_integer("shards", 8, "mesh_transformer: shards to write.", lower_bound=1)
flags.DEFINE_string(
    "mesh_config", None, "mesh_transformer: its JSON file. Default: GPT-J 6B's."
)
flags.DEFINE_string(
    "tokenizer", None, "mesh_transformer: directory with vocab.json and merges.txt."
)
flags.mark_flags_as_required(["source", "to", "output"])

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
    bar = keras.utils.Progbar(None, unit_name="weight")
    return lambda: bar.add(1)


def load(source):
    """The model of `--source`, whatever it is."""
    if (Path(source) / "shard_0").is_dir():
        preprocessor = None
        if FLAGS.tokenizer:
            tokenizer = load_tokenizer(FLAGS.tokenizer)
            if tokenizer is None:
                raise app.UsageError(
                    f"--tokenizer={FLAGS.tokenizer} has no vocab.json and merges.txt."
                )
            preprocessor = GPTJCausalLMPreprocessor(tokenizer)
        return load_mesh_transformer(
            GPTJCausalLM,
            source,
            FLAGS.mesh_config or GPT_J_6B,
            preprocessor,
            progress_bar(),
            dtype=FLAGS.dtype,
        )
    directory = find_hugging_face_gpt_j(source)
    if directory is not None:
        return load_hugging_face(
            GPTJCausalLM, directory, on_weight=progress_bar(), dtype=FLAGS.dtype
        )
    if not (Path(source) / "config.json").is_file() and "://" not in source:
        raise app.UsageError(
            f"--source={source} is no checkpoint. Expected a directory with "
            "config.json or shard_0, or a handle like hf://EleutherAI/gpt-j-6b."
        )
    return GPTJCausalLM.from_preset(source, dtype=FLAGS.dtype)


def logits_sums(model):
    """Sum and absolute sum of the logits of a fixed row of token ids."""
    length = min(32, model.backbone.max_sequence_length)
    token_ids = (
        np.arange(1, length + 1)[None]
        * 7919
        % min(model.backbone.vocabulary_size, 50257)
    )
    logits = model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    logits = np.asarray(keras.ops.cast(logits, "float32"), "float64")
    return logits.sum(), np.abs(logits).sum()


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if FLAGS.mesh:
        keras.distribution.set_distribution(distribution.model_parallel(FLAGS.mesh))
    model = load(FLAGS.source)
    print("\nlogits: sum {:.6g}, sum of absolutes {:.6g}".format(*logits_sums(model)))
    if FLAGS.to == "preset":
        model.save_to_preset(FLAGS.output)
    elif FLAGS.to == "hugging_face":
        save_hugging_face(model, FLAGS.output)
    else:
        save_mesh_transformer(model, FLAGS.output, shards=FLAGS.shards)
    print(f"Written: {FLAGS.output} ({FLAGS.to}).")


if __name__ == "__main__":
    app.run(main)
