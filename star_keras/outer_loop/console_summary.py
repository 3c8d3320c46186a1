"""What a run prints of its results: a table an iteration, and an example."""

import math
from collections.abc import Mapping, Sequence

import rich.box
from rich.table import Table
from rich.text import Text

from star_keras.config import StarConfig
from star_keras.outer_loop.contamination import describe_repeats, find_contamination
from star_keras.outer_loop.evaluation import example_sample
from star_keras.outer_loop.iteration import OuterLoop
from star_keras.outer_loop.progress import PHASE_SECONDS, Progress, format_seconds
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.statistics import class_metrics
from star_keras.storage.run_directory import RunDirectory
from star_keras.tasks.task import Problem

_NAMED = 10


def show_start(
    progress: Progress,
    problems: Mapping[str, Sequence[Problem]],
    prompts: PromptBuilder,
    config: StarConfig,
):
    """Print the kind of prompts, and problems to know of.

    These are training problems without an answer, held-out problems that the model sees
    elsewhere, fewer problems than are to be drawn, and repeated questions.

    Args:
        progress: Where it is printed.
        problems: The problems by split.
        prompts: Makes the prompts.
        config: All settings.
    """
    if not progress.shown:
        return
    chat = prompts.chat
    if chat is not None:
        progress.print(
            f"prompts: the model's chat template; turns end in {chat.end_of_turn} "
            "(or --nochat)"
        )
    train = problems["train"]
    if unanswered := sum(problem.answer is None for problem in train):
        known = len(train) - unanswered
        progress.print(
            f"{unanswered:,} of {len(train):,} training problems have no answer: "
            "train_accuracy and majority_accuracy "
            + (f"are those of the other {known:,}" if known else "are left out")
        )
    seen = find_contamination(problems, prompts)
    if seen:
        named = [f"{problem.id} ({place})" for problem, place in seen[:_NAMED]]
        more = f" and {len(seen) - _NAMED:,} more" if len(seen) > _NAMED else ""
        progress.print(
            f"{len(seen):,} held-out problems are seen elsewhere, their accuracy says "
            f"little: {', '.join(named)}{more}"
        )
    for split, settings, setting, name in (
        ("train", config.sampling, "n_train_samples", "training problems"),
        ("eval", config.run, "n_eval_samples", "held-out problems"),
    ):
        group, wanted = problems.get(split, ()), getattr(settings, setting)
        if wanted is not None and wanted > len(group):
            progress.print(
                f"{setting}={wanted:,}, but there are {len(group):,} {name}: all of "
                "them are drawn"
            )
        if repeats := describe_repeats(group, name):
            progress.print(repeats)


def show_iteration(progress: Progress, run: RunDirectory, iteration: int):
    """Print what a finished iteration has achieved, beside the one before it.

    Args:
        progress: Where it is printed.
        run: Holds the metrics.
        iteration: The iteration, from 1.
    """
    if not progress.shown:
        return
    metrics, previous = run.metrics(iteration), run.metrics(iteration - 1)
    if "eval_accuracy" in metrics:
        progress.console.print(_accuracy_table(iteration, metrics, previous))
    progress.print(_kept_line(metrics))
    line = _rationales_line(metrics)
    if line:
        progress.print(line)
    progress.print(_time_line(metrics))
    progress.print()


def show_example(
    progress: Progress, run: RunDirectory, loop: OuterLoop, iteration: int
):
    """Print one held-out problem as an iteration's model has solved it.

    It is the same problem for all iterations, see `example_sample`. No-op
    without an evaluation.

    Args:
        progress: Where it is printed.
        run: Holds the samples.
        loop: Has the problem, and formats it.
        iteration: The iteration; 0 is the base model.
    """
    sample = example_sample(run.samples, iteration) if progress.shown else None
    if sample is None:
        return
    (problem,) = [p for p in loop.problems["eval"] if p.id == sample.problem]
    name = f"the model of iteration {iteration}" if iteration else "the base model"
    title = Text(f"problem {problem.id} by {name}: {sample.verdict}")
    console = progress.console
    console.rule(title, characters="-", align="left")
    question = loop.prompts.question(problem)
    prompt = Text(question, style="dim")
    console.print(prompt + Text(sample.completion, style="bold"), soft_wrap=True)
    console.rule(characters="-")


def _accuracy_table(number, metrics, previous):
    name = "eval_accuracy"
    table = Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("held-out accuracy")
    for title in (f"iteration {number - 1}", f"iteration {number}", "change"):
        table.add_column(title, justify="right")
    for key, label in {**class_metrics(metrics, name), name: "all"}.items():
        before, now = previous.get(key), metrics[key]
        if key == name:
            low, high = (metrics[f"{name}_{end}"] for end in ("low", "high"))
            label += f" (95% interval {low:.1%} to {high:.1%})"
        change = "" if before is None else f"{100 * (now - before):+.1f}"
        table.add_row(
            label, "" if before is None else f"{before:.1%}", f"{now:.1%}", change
        )
    return table


def _kept_line(metrics):
    reasons = [
        f"{metrics[key]:,} {reason}"
        for key, reason in class_metrics(metrics, "not_kept").items()
    ]
    return (
        f"kept {metrics['num_rationales']:,} rationales: {metrics['share_kept']:.1%} "
        f"of the problems unaided, {metrics['share_rationalized']:.1%} rationalized; "
        f"not kept: {', '.join(reasons) or 'none'}"
    )


def _rationales_line(metrics):
    """A line about the kept rationales; empty without any."""
    parts = [
        text.format(metrics[name])
        for name, text in (
            ("rationale_tokens", "{:.1f} tokens on average"),
            ("share_repeated", "{:.1%} as in the iteration before"),
            ("share_hint_copied", "{:.1%} of the correct rationalizations copy a hint"),
        )
        if not math.isnan(metrics.get(name, math.nan))
    ]
    return f"rationales: {', '.join(parts)}" if parts else ""


def _time_line(metrics):
    parts = [
        f"{title} {format_seconds(metrics[name])}"
        for name, title in PHASE_SECONDS.items()
        if name in metrics
    ]
    return f"time: {', '.join(parts)}"
