"""A run in five lines."""

from collections.abc import Sequence

from star_keras.outer_loop.html_report.overview import Counts, Table, percent
from star_keras.outer_loop.progress import PHASE_SECONDS, format_seconds
from star_keras.storage.run_files import RunFiles


def facts(runs: Sequence[RunFiles], counts: Counts) -> Table:
    """The runs in five lines, a column for each run."""
    columns = [_facts(number, run, counts) for number, run in enumerate(runs)]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return Table(
        title="Runs" if len(runs) > 1 else "Run",
        columns=["", *(run.name for run in runs)],
        rows=rows,
    )


def _facts(number, run, counts):
    return {
        "Task": _task(number, run, counts),
        "Base model": _base_model(run.settings),
        "Progress": _progress(run),
        "Held-out accuracy": _accuracy(run),
        "Time and tokens": _effort(number, run, counts),
    }


def _task(number, run, counts):
    text = str(run.settings.get("task.task", "unknown"))
    sampled = [
        found["samples"]
        for (of_run, _, kind), found in counts.items()
        if of_run == number and kind in ("rationale", "direct")
    ]
    if sampled:
        text += f", {max(sampled):,} completions of training problems an iteration"
    if run.settings.get("sampling.direct") is True:
        text += ", known answers in place of rationales"
    elif run.settings.get("sampling.rationalize") is False:
        text += ", without rationalization"
    return text


def _base_model(settings):
    optimizer = "model.optimizer.config.learning_rate"
    schedule = f"{optimizer}.config.learning_rate"
    rate = settings.get(optimizer, settings.get(schedule))
    checksum = settings.get("model.base_weights_crc32")
    parts = [f"weights {checksum:08x}" if isinstance(checksum, int) else ""]
    names = "model.dtype", "model.optimizer.class_name"
    parts += [str(settings.get(name) or "") for name in names]
    parts += [f"learning rate {rate:g}" if isinstance(rate, int | float) else ""]
    return ", ".join(filter(None, parts)) or "unknown"


def _progress(run):
    text = f"{run.trained} iteration{'' if run.trained == 1 else 's'} trained"
    last = max((line["iteration"] for line in run.history), default=0)
    return text + (f", iteration {last} under way" if last > run.trained else "")


def _accuracy(run):
    evaluated = [line for line in run.history if "eval_accuracy" in line]
    if not evaluated:
        return "not evaluated"
    first, last = evaluated[0], evaluated[-1]
    text = f"{percent(last['eval_accuracy'])} after iteration {last['iteration']}"
    if {"eval_accuracy_low", "eval_accuracy_high"} <= last.keys():
        low, high = (percent(last[f"eval_accuracy_{end}"]) for end in ("low", "high"))
        text += f" (95% interval {low} to {high})"
    if first is not last:
        begin = (
            f"iteration {first['iteration']}" if first["iteration"] else "base model"
        )
        text += f"; {begin} {percent(first['eval_accuracy'])}"
    return text


def _effort(number, run, counts):
    seconds = sum(line.get(n, 0) for line in run.history for n in PHASE_SECONDS)
    tokens = sum(found["tokens"] for key, found in counts.items() if key[0] == number)
    return f"{format_seconds(seconds)}; {tokens:,} tokens sampled"
