"""One iteration of the outer loop by phase, and how it grows.

    python -m benchmarks.iteration

`StarIterationCallback` runs one iteration from the base model of the arithmetic
runs: one pass of training over the kept rationales, and an evaluation on as many
held-out problems as there are training problems. An iteration with at most 300
problems comes first and compiles. There are three series: over the number of
problems, of worked examples in the prompt, and of digits.

Columns:
    sampled     tokens of completions, with and without a hint
    kept        rationales to train on
    sample s    sampler, with and without a hint
    grade s     grading and journal of all samples
    pack s      tokenization and packing
    train s     training steps
    evaluate s  sampler, held-out problems
    other s     the rest: selection, files, base weights, checkpoint, plots
    all s       the iteration
"""

import tempfile

from absl import app, flags

from benchmarks.libraries import load_libraries

FLAGS = flags.FLAGS
flags.DEFINE_list("problems", ["500", "2000", "8000"], "Problems an iteration.")
flags.DEFINE_list("examples", ["0", "1", "2"], "Worked examples in the prompt.")
flags.DEFINE_list("digits", ["2", "5", "8"], "Digits of the problems, all alike.")
flags.DEFINE_integer("common", 1000, "Problems of the other two series.")

PHASES = ("sample", "grade", "pack", "train", "evaluate", "other", "all")


def make_task(problems, examples, digits):
    from star_keras import tasks

    return tasks.get(
        "arithmetic",
        digits=[digits],
        extrapolation_digits=[digits + 1],
        train_problems=problems,
        eval_problems=problems,
        examples_per_length=max(examples, 1),
    )


def make_config(examples):
    from star_keras.config import SamplingConfig, StarConfig, TrainingConfig

    return StarConfig(
        sampling=SamplingConfig(few_shot=examples > 0),
        training=TrainingConfig(
            schedule="epochs", base_epochs=1.0, batch_size=16, sequence_length=256
        ),
    )


def run_iteration(model, task, config, sampler):
    """Run one iteration, in a temporary directory.

    Args:
        model: The base model, compiled, with an optimizer that has made no steps.
        task: The task.
        config: A `StarConfig`.
        sampler: The sampler of training problems and held-out problems.

    Returns:
        A dict of seconds by phase, the number of sampled tokens, and the number of
        kept rationales.
    """
    from benchmarks.timing import Stopwatch, TimedFunction, TimedSampler
    from star_keras.callbacks import StarIterationCallback

    training_sampler, eval_sampler = TimedSampler(sampler), TimedSampler(sampler)
    # `fit` evaluates the base model before the first iteration.
    stopwatch = Stopwatch(on_start=eval_sampler.reset)
    with tempfile.TemporaryDirectory() as run_dir:
        star = StarIterationCallback(
            model,
            task,
            run_dir,
            config,
            sampler=training_sampler,
            eval_sampler=eval_sampler,
        )
        star.loop._pack = pack = TimedFunction(star.loop._pack)
        star.fit(1, callbacks=[stopwatch], verbose=0)
    seconds = {
        "sample": training_sampler.seconds,
        "grade": training_sampler.grading_seconds + eval_sampler.grading_seconds,
        "pack": pack.seconds,
        "train": stopwatch.logs["training_seconds"],
        "evaluate": eval_sampler.seconds,
    }
    seconds["other"] = stopwatch.seconds - sum(seconds.values())
    seconds["all"] = stopwatch.seconds
    return seconds, training_sampler.num_tokens, stopwatch.logs["num_examples"]


def main(argv):
    load_libraries()
    from star_keras.config import OptimizerConfig
    from star_keras.models import load_causal_lm
    from star_keras.outer_loop.base_model import BaseModel
    from star_keras.sampling import get_sampler
    from star_keras.training import compile_model

    model = load_causal_lm("arithmetic_base")
    compile_model(model, OptimizerConfig(learning_rate=1e-4, warmup_steps=0))
    base = BaseModel(model)
    settings = [
        *((int(n), 0, 5) for n in FLAGS.problems),
        *((FLAGS.common, int(n), 3) for n in FLAGS.examples),
        *((FLAGS.common, 0, int(n)) for n in FLAGS.digits),
    ]
    print(
        f"{'problems':>8} {'examples':>8} {'digits':>6} {'sampled':>8} {'kept':>6} "
        + " ".join(f"{phase + ' s':>10}" for phase in PHASES)
    )
    for problems, examples, digits in settings:
        sampler = get_sampler(model, max_new_tokens=40 + 16 * digits, batch_size=128)
        config = make_config(examples)
        for count in (min(problems, 300), problems):
            base.restart()
            seconds, tokens, kept = run_iteration(
                model, make_task(count, examples, digits), config, sampler
            )
        print(
            f"{problems:8} {examples:8} {digits:6} {tokens:8} {kept:6} "
            + " ".join(f"{seconds[phase]:10.2f}" for phase in PHASES),
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
