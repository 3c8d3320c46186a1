"""Fine-tune a causal LM on text: plain next-token training, without the outer loop.

    python -m experiments.finetune --preset=SmolLM2-135M --train_path=train.jsonl \\
        --eval_path=eval.jsonl --run_dir=runs/tuned --epochs=2 --learning_rate=1e-5

Reads text files, JSON lines with `text`, with `prompt` and `response` or `completion`,
or with `messages`, and the TFRecords of mesh-transformer-jax; see docs/finetuning.md.
The same command resumes a training that was interrupted.
"""

import dataclasses

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import ModelSettings, ProcessSettings, load_libraries
from experiments.outputs import make_directory, save_directory
from star_keras.config import OptimizerConfig, RunConfig, TrainingConfig
from star_keras.tasks.record_sources import TEXT_FILES, existing_source
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings(Settings):
    """What is trained on, how long, and where the model goes."""

    train_path: str | None = setting(
        None,
        "Text (*.txt), JSON lines, CSV, Parquet, hf://OWNER/NAME:SPLIT, "
        "DIRECTORY:SPLIT, tfds://NAME:SPLIT, or TFRecords of token ids (*.tfrecords, "
        "*.index).",
        is_needed=True,
    )
    eval_path: str | None = setting(
        None, "Held-out examples, from the same sources. Default: no evaluation."
    )
    run_dir: str | None = setting(
        None, "Directory of the training.", is_path=True, is_needed=True
    )
    epochs: float | None = setting(
        None, "Passes over the training examples. Default: 1, without --steps.", above=0
    )
    steps: int | None = setting(
        None, "Training steps in place of --epochs.", at_least=1
    )
    eval_steps: int | None = setting(
        None, "Steps between two evaluations. Default: all.", at_least=1
    )
    random_weights: bool = setting(
        False,
        "Begin with random weights: of --preset only configuration and tokenizer.",
    )
    to: str = setting(
        "preset",
        "Format of the trained model, in a directory of this name in --run_dir.",
        choices=("preset", "hugging_face"),
    )

    def check(self):
        if self.steps and self.epochs:
            rule = f"`None` with steps={self.steps}"
            raise invalid("epochs", rule, self.epochs, "Leave one of them out.")


SETTINGS = (
    FinetuneSettings,
    ModelSettings,
    ProcessSettings,
    OptimizerConfig,
    TrainingConfig,
    RunConfig,
)
define_flags(*SETTINGS[:-2])
define_flags(TrainingConfig, only=("batch_size", "sequence_length"))
define_flags(RunConfig, only=("seed", "checkpoint_steps"))


def read_examples(path, argument, model, sequence_length):
    """The tokenized examples of a file or dataset, in a temporary file."""
    from star_keras.models.max_sequence_length import max_sequence_length
    from star_keras.training.fine_tuning_examples import read_fine_tuning_examples
    from star_keras.training.stored_examples import StoredExamples

    if path is None:
        return None
    limit = max_sequence_length(model) or sequence_length
    return StoredExamples(
        read_fine_tuning_examples(
            path,
            model.preprocessor,
            max_length=min(sequence_length, limit),
            vocabulary_size=model.backbone.vocabulary_size,
            argument=argument,
        )
    )


def num_steps(settings, examples, training):
    """The training steps of the settings."""
    from star_keras.training import pack

    if settings.steps:
        return settings.steps
    rows = len(pack(examples.lengths.tolist(), training.sequence_length))
    return max(1, round((settings.epochs or 1.0) * rows / training.batch_size))


def main(argv):
    settings, model_settings, process, optimizer, training, run = from_flags(
        argv, *SETTINGS
    )
    paths = {name: getattr(settings, name) for name in ("train_path", "eval_path")}
    for name, path in paths.items():
        if path is not None:
            existing_source(path, name, TEXT_FILES)
    make_directory("run_dir", settings.run_dir)
    say_hello(f"fine-tuning {model_settings.preset} on {settings.train_path}")
    load_libraries()
    import keras

    from star_keras import models
    from star_keras.callbacks import FineTuning
    from star_keras.distribution import processes
    from star_keras.training import compile_model

    process.join(settings, model_settings, optimizer, training, run)
    keras.utils.set_random_seed(run.seed)
    model = model_settings.load(load_weights=not settings.random_weights)
    compile_model(model, optimizer)
    examples, held_out = (
        read_examples(path, name, model, training.sequence_length)
        for name, path in paths.items()
    )
    steps = num_steps(settings, examples, training)
    tuning = FineTuning(
        model,
        examples,
        settings.run_dir,
        steps=steps,
        eval_examples=held_out,
        eval_steps=settings.eval_steps,
        training=training,
        run=run,
    )
    if processes.is_writer():
        tokens = int(examples.lengths.sum())
        print(f"{len(examples):,} examples, {tokens:,} tokens, {steps:,} steps")
    tuning.fit()
    output = tuning.directory.path / settings.to
    with tuning.directory.lock.held(), processes.whole(model.variables):
        if processes.is_writer():
            if settings.to == "preset":
                save_directory(model.save_to_preset, output)
            else:
                save_directory(
                    lambda path: models.save_hugging_face(model, path), output
                )
    if processes.is_writer():
        for name in ("val_loss", "val_perplexity"):
            values = [x[name] for x in tuning.directory.metrics if name in x]
            if values:
                print(f"{name}: {values[0]:.4f} before, {values[-1]:.4f} after")
        print(f"The trained model is {output}.")


if __name__ == "__main__":
    run_main(main)
