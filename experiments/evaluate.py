"""Evaluate a preset on a split of a task.

    python -m experiments.evaluate --preset=runs/cpu/preset --output=runs/eval \
        --no_prompt --max_new_tokens=112

Greedy exact match with its 95% interval, by class of problem too. With
`--num_samples=8 --temperature=0.7` also pass@1 to pass@8 and maj@8.
"""

import dataclasses
import json

import keras
from absl import app, flags
from etils import epath

from experiments.common import load_model, make_sampler, make_task
from star_keras import files, prompts
from star_keras.distribution import processes
from star_keras.evaluation import evaluate
from star_keras.json_lines import write_json_lines

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "Directory of the figures and completions.")
flags.DEFINE_string("split", "eval", "Split of the task.")
flags.DEFINE_integer("num_problems", None, "Its first so many. Default: all.")
flags.DEFINE_integer("num_samples", 1, "Completions a problem.", lower_bound=1)
flags.DEFINE_bool("no_prompt", False, "Without worked examples.")
flags.DEFINE_bool("direct", False, "Worked examples without their rationales.")


def check_flags(argv, task):
    """Raise for flags that do not go together."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if FLAGS.output is None:
        raise app.UsageError("--output is needed: a directory for the results.")
    if FLAGS.split not in task.splits:
        raise app.UsageError(
            f"--split={FLAGS.split} is not a split of {task.name}. Expected one of "
            f"{list(task.splits)}."
        )
    if FLAGS.num_samples > 1 and not FLAGS.temperature:
        raise app.UsageError(
            f"--num_samples={FLAGS.num_samples} needs a --temperature above 0: "
            "greedy samples are all the same."
        )


def write_evaluation(task, sampler, output, *, split, prefix="", iteration=0):
    """Evaluate, and write `figures.json` and `completions.jsonl`.

    Args:
        task: The task.
        sampler: Samples the completions.
        output: Directory, made if needed.
        split: Split of the task.
        prefix: The few-shot prompt.
        iteration: The outer-loop iteration that the model is of.

    Returns:
        The figures, see `star_keras.evaluation.summarize`.
    """
    problems = task.problems(split)[: FLAGS.num_problems]
    figures, completions = evaluate(
        task,
        problems,
        sampler,
        prefix=prefix,
        iteration=iteration,
        num_samples=FLAGS.num_samples,
    )
    output = epath.Path(output)
    if not processes.is_writer():
        return figures
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=2)
    files.write(output / "figures.json", (text + "\n").encode("utf-8"))
    write_json_lines(output / "completions.jsonl", map(dataclasses.asdict, completions))
    for name, value in figures.items():
        print(
            f"{name:24} {value:.4f}"
            if isinstance(value, float)
            else f"{name:24} {value}"
        )
    print(f"Figures and completions are in {output}.")
    return figures


def main(argv):
    task = make_task()
    check_flags(argv, task)
    keras.utils.set_random_seed(FLAGS.seed)
    model = load_model()
    prefix = ""
    if not FLAGS.no_prompt:
        prefix = prompts.few_shot_prompt(task, direct=FLAGS.direct)
    write_evaluation(
        task, make_sampler(model), FLAGS.output, split=FLAGS.split, prefix=prefix
    )


if __name__ == "__main__":
    app.run(main)
