"""Plots of runs and of evaluations."""

import io
from collections.abc import Mapping, Sequence

from etils import epath
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from star_keras.outer_loop.statistics import class_metrics
from star_keras.utils import files

_EVAL = "eval_accuracy"


def save_plots(metrics: list[dict], directory):
    """Write `accuracy.png` and `kept.png` into a directory.

    Args:
        metrics: The lines of `metrics.jsonl`.
        directory: Where the plots go, local or `gs://`.

    Raises:
        OSError: if a file cannot be written.
    """
    if any(_EVAL in line for line in metrics):
        plot_accuracy(metrics, epath.Path(directory) / "accuracy.png")
    if any("share_kept" in line for line in metrics):
        plot_kept(metrics, epath.Path(directory) / "kept.png")


def plot_accuracy(metrics: list[dict], path):
    """Held-out accuracy by iteration, one line a problem class."""
    axes, save = _axes(path, "held-out accuracy")
    names = {name for line in metrics for name in line}
    for key, label in class_metrics(names, _EVAL).items():
        _line(axes, metrics, key, label, marker="o")
    _line(axes, metrics, _EVAL, "all", color="black", linewidth=2.5)
    save()


def plot_kept(metrics: list[dict], path):
    """Share of the training problems kept, unaided and rationalized."""
    axes, save = _axes(path, "share of the training problems")
    _line(axes, metrics, "share_kept", "solved without a hint", marker="o")
    _line(axes, metrics, "share_rationalized", "rationalized", marker="o")
    save()


def plot_over_tokens(
    methods: Mapping[str, Sequence[Sequence[tuple[int, float]]]], path
):
    """Held-out accuracy over the tokens spent, a color for each method.

    Thin lines are the runs, the thick one is their mean by iteration.

    Args:
        methods: For each method its runs, for each run the tokens and the accuracy of
            each iteration. The runs of a method have equally many iterations.
        path: The file.
    """
    axes, save = _axes(path, "held-out accuracy", "sampled and trained tokens", 9.0)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter())
    for number, (method, runs) in enumerate(methods.items()):
        style = {"color": f"C{number}"}
        for points in runs:
            axes.plot(*zip(*points, strict=True), linewidth=0.6, alpha=0.6, **style)
        mean = [
            tuple(sum(values) / len(values) for values in zip(*points, strict=True))
            for points in zip(*runs, strict=True)
        ]
        label = method.replace("_", " ")
        axes.plot(*zip(*mean, strict=True), label=label, marker="o", **style)
    save()


def plot_over_k(metrics: Mapping[str, float], path):
    """`pass@k`, `maj@k` and `best@k` of an evaluation over k, those that are there.

    Args:
        metrics: Metrics of an evaluation with several samples.
        path: The file.
    """
    axes, save = _axes(path, "share of the problems", "k")
    for name in ("pass", "maj", "best"):
        points = [
            (int(key.removeprefix(f"{name}@")), value)
            for key, value in metrics.items()
            if key.startswith(f"{name}@")
        ]
        if points:
            axes.plot(*zip(*points, strict=True), label=f"{name}@k", marker="o")
    save()


def _axes(path, label, xlabel="iteration", width=6.4):
    # Not through pyplot, whose figures and backend belong to the user.
    figure = Figure(figsize=(width, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlabel=xlabel, ylabel=label, ylim=(-0.02, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3)

    def save():
        # Beside the axes: within, it hides points of a run of few iterations.
        figure.legend(loc="outside right upper")
        image = io.BytesIO()
        figure.savefig(image, dpi=150)
        files.write(path, image.getvalue())

    return axes, save


def _line(axes, metrics, key, label, **style):
    points = [(line["iteration"], line[key]) for line in metrics if key in line]
    axes.plot(*zip(*points, strict=True), label=label, **style)
