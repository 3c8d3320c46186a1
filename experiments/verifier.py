"""Train a verifier from the right and the wrong rationales of a run.

    python -m experiments.verifier --run_dir=runs/cpu --output=runs/verifier \\
        --training_steps=500 --sequence_length=256

The base model learns by DPO to tell right from wrong rationales of a problem, of all
iterations. `python -m experiments.evaluate --verifier=runs/verifier` ranks with it.
"""

import dataclasses
import functools
import itertools

from etils import epath

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import ModelSettings, load_libraries
from experiments.outputs import make_new_directory, save_directory
from experiments.task_settings import TaskSettings
from star_keras.config import (
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    TrainingConfig,
)
from star_keras.storage.manifest import existing_run
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifierSettings(Settings):
    """What the verifier learns from, and where it goes."""

    run_dir: str | None = setting(
        None, "Directory of the run.", is_path=True, is_needed=True
    )
    output: str | None = setting(
        None, "Preset to write, a new or empty directory.", is_path=True, is_needed=True
    )
    training_steps: int = setting(500, "Training steps.", at_least=1)


SETTINGS = (
    VerifierSettings,
    TaskSettings,
    ModelSettings,
    SamplingConfig,
    TrainingConfig,
    OptimizerConfig,
    RunConfig,
)
define_flags(*SETTINGS[:3])
define_flags(SamplingConfig, only=("chat",))
define_flags(TrainingConfig, only=("batch_size", "sequence_length"))
define_flags(
    OptimizerConfig,
    only=(
        *("learning_rate", "warmup_steps", "lr_schedule", "decay_steps", "beta_2"),
        *("clipnorm", "gradient_accumulation_steps", "gradient_checkpointing"),
        *("dpo_beta", "lora_rank"),
    ),
)
define_flags(RunConfig, only=("seed",))


def read_pairs(run_dir, task):
    """The pairs of all iterations, by problem. None is an error."""
    from star_keras.outer_loop.verification import rationale_pairs
    from star_keras.storage.iteration_names import iteration_directories
    from star_keras.storage.run_directory import RunDirectory

    store = RunDirectory(run_dir).samples
    phases = (
        store.load(iteration, "rationale") or ()
        for iteration in iteration_directories(store.directory)
    )
    pairs = rationale_pairs(task, itertools.chain.from_iterable(phases))
    if not pairs:
        raise ValueError(
            f"{run_dir} has no problem with a right and a wrong rationale without a "
            "hint. Sample with --samples_per_problem above 1, or run more iterations."
        )
    return pairs


def tokenize(model, prompts, problems, pairs, sequence_length):
    """Examples 0 and 1, 2 and 3 and so on are pairs; those too long are an error."""
    from star_keras.training.examples import response_tokens
    from star_keras.training.stored_examples import StoredExamples, tokenize_stream

    unknown = pairs.keys() - problems.keys()
    if unknown:
        raise ValueError(
            f"The task has no training problem {min(unknown)!r}, which the run has. "
            "Use the task flags of the run."
        )
    names = [name for name, several in pairs.items() for _ in several]
    texts = (
        (prompts.build(problems[name], False), text, 1.0)
        for name, several in pairs.items()
        for pair in several
        for text in pair
    )
    kwargs = response_tokens(model.preprocessor.tokenizer, prompts.chat)
    examples = StoredExamples(tokenize_stream(model.preprocessor, texts, **kwargs))
    lengths = examples.lengths.reshape(-1, 2).sum(axis=1)
    longest = int(lengths.argmax())
    if lengths[longest] > sequence_length:
        raise ValueError(
            f"A pair of problem {names[longest]!r} has {lengths[longest]} tokens, more "
            f"than --sequence_length={sequence_length}."
        )
    return examples


def main(argv):
    settings = from_flags(argv, *SETTINGS)
    script, task_settings, model_settings, sampling, training, optimizer, run = settings
    task = task_settings.make()
    existing_run("run_dir", script.run_dir)
    make_new_directory("output", script.output)
    say_hello(f"verifier from {script.run_dir}, base model {model_settings.preset}")
    load_libraries()
    import keras

    from star_keras.models import PackedCausalLM
    from star_keras.outer_loop.problems import checked_problems
    from star_keras.outer_loop.prompts import find_chat_template
    from star_keras.outer_loop.verification import verifier_prompts
    from star_keras.training import compile_model, training_batches, training_dataset
    from star_keras.training.dataset import feed_token_ids
    from star_keras.training.reference_scorer import ReferenceScorer

    pairs = read_pairs(script.run_dir, task)
    keras.utils.set_random_seed(run.seed)
    model = model_settings.load()
    if not isinstance(model, PackedCausalLM):
        raise ValueError(
            "A verifier needs a model that trains the fast way, see docs/models.md."
        )
    problems = {p.id: p for p in checked_problems(task, "train")}
    rpo = dataclasses.replace(optimizer, objective="rpo", nll_weight=0.0)
    compile_model(model, rpo)
    chat = find_chat_template(model.preprocessor, sampling.chat)
    prompts = verifier_prompts(task, chat)
    length = training.sequence_length
    examples = tokenize(model, prompts, problems, pairs, length)
    rows = {"batch_size": training.batch_size, "sequence_length": length}
    pad_id = model.preprocessor.tokenizer.pad_token_id
    scorer = ReferenceScorer(model, pad_id=pad_id, **rows)
    examples.references = scorer.score(examples)
    print(f"{len(examples) // 2} pairs of {len(pairs)} problems")
    batches = functools.partial(
        training_batches, examples, pad_id=pad_id, seed=(run.seed,)
    )
    feed_token_ids(model)
    history = model.fit(
        training_dataset(batches, paired=True, **rows),
        steps_per_epoch=script.training_steps,
        shuffle=False,
        verbose=0,
    ).history
    for name in ("loss", "pair_accuracy", "pair_margin"):
        print(f"{name:24} {history[name][0]:.4f}")
    save_directory(model.save_to_preset, epath.Path(script.output))
    print(f"Saved the verifier {script.output}.")


if __name__ == "__main__":
    run_main(main)
