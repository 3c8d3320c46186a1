"""The numbers of a report: tables and charts, several runs side by side."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from star_keras.outer_loop.html_report.charts import Chart, make_chart
from star_keras.outer_loop.progress import PHASE_SECONDS, format_seconds
from star_keras.outer_loop.statistics import class_metrics
from star_keras.storage.run_files import RunFiles

# Metrics of accuracy, and their titles.
_ACCURACIES = {
    "eval_accuracy": "Held-out accuracy",
    "train_accuracy": "Accuracy on training problems, without a hint",
    "rationalization_accuracy": "Accuracy on failed training problems, with a hint",
}
_KIND_TOKENS = {
    "rationale": "without a hint",
    "rationalization": "with a hint",
    "evaluation": "held-out",
}
# More lines in a chart, or more charts, are unreadable.
_MOST_LINES = 12

# By run, iteration and kind: `ProblemData.counts`.
Counts = Mapping[tuple[int, int, str], collections.Counter]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
        title: What it shows.
        columns: Titles of the columns.
        rows: Rows of texts; the first text is the name of the row.
        is_open: Whether the table is open at first.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_open: bool = True


def accuracy_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Accuracy by iteration: a line for each class, or for each of several runs."""
    if len(runs) > 1:
        name = "eval_accuracy"
        charts = [
            make_chart(
                f"Held-out accuracy: {label}",
                {run.name: _values(run, key) for run in runs},
            )
            for key, label in _labels(runs, name)[:_MOST_LINES]
        ]
    else:
        charts = []
        for name in ("eval_accuracy", "train_accuracy"):
            # The line of all classes comes last, on top.
            first, *classes = _labels(runs, name)[:_MOST_LINES] or [(name, "all")]
            lines = {label: _values(runs[0], key) for key, label in [*classes, first]}
            charts.append(make_chart(_ACCURACIES[name], lines))
    return [chart for chart in charts if chart is not None]


def kept_charts(runs: Sequence[RunFiles]) -> list[Chart]:
    """Shares of the problems kept by iteration."""
    names = {"share_kept": "kept unaided", "share_rationalized": "rationalized"}
    charts = [
        make_chart(
            "Share of the training problems"
            + (f": {run.name}" if len(runs) > 1 else ""),
            {label: _values(run, key) for key, label in names.items()},
        )
        for run in runs
    ]
    return [chart for chart in charts if chart is not None]


def accuracy_tables(runs: Sequence[RunFiles]) -> list[Table]:
    """Accuracies by class, a row for each iteration and run."""
    tables = []
    for name, title in _ACCURACIES.items():
        labels = _labels(runs, name)
        columns = {label: _cell(key, percent) for key, label in labels}
        if name == "eval_accuracy" and labels:
            columns["95% interval"] = _interval
        tables.append(_table(title, runs, columns, is_open=name == "eval_accuracy"))
    return [table for table in tables if table.rows]


def kept_table(runs: Sequence[RunFiles]) -> Table:
    """Kept and rationalized problems of each iteration, and reasons for rejection."""
    columns = {
        "kept": _cell("num_rationales", _number),
        "problems kept unaided": _cell("share_kept", percent),
        "problems rationalized": _cell("share_rationalized", percent),
        "problems mastered": _cell("share_mastered", percent),
        "training examples": _cell("num_examples", _number),
    }
    for key, reason in _labels(runs, "not_kept"):
        columns[f"not kept: {reason}"] = _cell(key, _number)
    return _table("Kept for training, and reasons for rejection", runs, columns)


def time_table(runs: Sequence[RunFiles], counts: Counts) -> Table:
    """Times, training speed and sampled tokens of each iteration."""

    def tokens(kind):
        def cell(number, line):
            found = counts.get((number, line["iteration"], kind))
            return f"{found['tokens']:,}" if found else ""

        return cell

    columns = {
        **{t: _cell(n, format_seconds) for n, t in PHASE_SECONDS.items()},
        "steps": _cell("steps", _number),
        "trained tokens/s": _cell("tokens_per_second", _number),
        **{f"tokens {title}": tokens(kind) for kind, title in _KIND_TOKENS.items()},
    }
    return _table("Times and tokens", runs, columns)


def metrics_table(runs: Sequence[RunFiles]) -> Table:
    """Every metric without a class."""
    names = {k for run in runs for line in run.history for k in line if "/" not in k}
    columns = {
        name: _cell(name, lambda value: f"{value:,.6g}")
        for name in sorted(names - {"iteration"})
    }
    return _table("All metrics", runs, columns, is_open=False)


def settings_table(runs: Sequence[RunFiles]) -> Table:
    """The settings of a run, or the differing settings of several runs."""
    names = sorted({name for run in runs for name in run.settings})
    rows = [[n, *(str(run.settings.get(n, "")) for run in runs)] for n in names]
    if len(runs) > 1:
        rows = [row for row in rows if len(set(row[1:])) > 1]
    return Table(
        title="Settings that differ" if len(runs) > 1 else "Settings",
        columns=["setting", *(run.name for run in runs)],
        rows=rows,
        is_open=len(runs) > 1,
    )


def _table(title, runs, columns: Mapping[str, Callable], is_open=True):
    """A row for each iteration of each run, without empty columns."""
    iterations = sorted({line["iteration"] for run in runs for line in run.history})
    names, rows = [], []
    for iteration in iterations:
        for number, run in enumerate(runs):
            for line in run.history:
                if line["iteration"] == iteration:
                    name = (
                        f"{iteration}, {run.name}" if len(runs) > 1 else f"{iteration}"
                    )
                    cells = [cell(number, line) for cell in columns.values()]
                    if any(cells):
                        names.append(name)
                        rows.append(cells)
    shown = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    titles = list(columns)
    return Table(
        title=title,
        columns=[
            "iteration, run" if len(runs) > 1 else "iteration",
            *(titles[i] for i in shown),
        ],
        rows=[[n, *(r[i] for i in shown)] for n, r in zip(names, rows, strict=True)],
        is_open=is_open,
    )


def _labels(runs, name):
    """A metric and those of its classes, each with its label."""
    found = {k for run in runs for line in run.history for k in line}
    everything = [(name, "all")] if name in found else []
    return [*everything, *class_metrics(found, name).items()]


def _values(run, key):
    return {line["iteration"]: line[key] for line in run.history if key in line}


def _cell(key, form):
    return lambda _, line: form(line[key]) if key in line else ""


def _interval(_, line):
    ends = [line.get(f"eval_accuracy_{end}") for end in ("low", "high")]
    return "" if None in ends else " to ".join(map(percent, ends))


def percent(share: float) -> str:
    """E.g. `"99.3%"`."""
    return f"{share:.1%}"


def _number(value):
    return f"{value:,.0f}"
