"""Methods compared: finished runs of several seeds each, by tokens and accuracy."""

import dataclasses
import re
import statistics
from collections.abc import Mapping, Sequence

from star_keras.config import StarConfig
from star_keras.outer_loop import plots
from star_keras.outer_loop.evaluation_table import TITLES, evaluation_rows
from star_keras.outer_loop.progress import PHASE_SECONDS, format_seconds
from star_keras.storage.command_log import read_commands
from star_keras.storage.run_files import RunFiles
from star_keras.utils import files
from star_keras.utils.errors import invalid
from star_keras.utils.settings import free_settings

_COMMON = {
    "task": "Compare runs of one task.",
    "held-out problems": "Compare runs with the same held-out problems.",
    "n_eval_samples": "Compare runs that evaluate on equally many problems.",
    "base model": "Compare runs with the same base model.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """A finished run.

    Attributes:
        path: The run directory.
        seed: Its seed.
        method: The name of the directory, without a seed at its end.
        common: What all compared runs have in common, by the names of `_COMMON`.
        settings: The settings but for the seed and free ones.
        points: For each iteration, from 0, the tokens sampled and trained on up to its
            end, and its held-out accuracy.
        sampled: Sampled tokens.
        trained: Tokens of the training steps, without padding.
        seconds: Wall time of all phases.
        command: The last line of `commands.jsonl`; empty without one.
    """

    path: str
    seed: int
    method: str
    common: Mapping
    settings: Mapping
    points: Sequence[tuple[int, float]]
    sampled: int
    trained: int
    seconds: float
    command: Mapping

    def accuracy_at(self, tokens: int) -> float:
        """The accuracy of the last iteration that needed no more tokens."""
        return [accuracy for spent, accuracy in self.points if spent <= tokens][-1]


def read_run(path) -> ComparedRun:
    """Read a finished run.

    Args:
        path: The run directory, local or `gs://`.

    Raises:
        ValueError: if it is not the directory of a run, a file is damaged, or the run
            is under way, was not evaluated, or did not record its tokens.
    """
    run = RunFiles(path)
    held_out = [
        (line["problem"], line["question"], line.get("answer"))
        for line in run.problems()
        if line["split"] == "eval"
    ]
    if run.faults:
        raise ValueError(" ".join(run.faults))
    sampled, trained, points = 0, 0, []
    for line in run.history:
        if "eval_accuracy" not in line:
            raise _unusable(path, _unevaluated(run, line["iteration"]))
        if line["iteration"]:
            if not {"sampled_tokens", "trained_tokens"} <= line.keys():
                raise _unusable(path, "is of a version that did not count tokens")
            sampled += line["sampled_tokens"] + line.get("hinted_tokens", 0)
            trained += line["trained_tokens"]
        points.append((sampled + trained, line["eval_accuracy"]))
    if not run.trained:
        raise _unusable(path, "has not finished an iteration")
    config = run.config
    if not {"run", "task", "model"} <= config.keys():
        raise _unusable(path, "has a config.json without settings")
    seed, left_out = config["run"]["seed"], {"seed", *free_settings(StarConfig)}
    return ComparedRun(
        path=str(path),
        seed=seed,
        method=re.sub(rf"[_.-](seed[_-]?)?{seed}$", "", run.name),
        common={
            "task": config["task"]["task"],
            "held-out problems": held_out,
            "n_eval_samples": config["run"]["n_eval_samples"],
            "base model": config["model"]["base_weights_crc32"],
        },
        settings={
            name: value
            for name, value in run.settings.items()
            if name.rpartition(".")[2] not in left_out
        },
        points=points,
        sampled=sampled,
        trained=trained,
        seconds=sum(line.get(k, 0) for line in run.history for k in PHASE_SECONDS),
        command=(read_commands(path) or [{}])[-1],
    )


def _unusable(path, fault):
    remedy = "Run its command to the end with this version, or leave it out."
    return ValueError(f"The run {path} {fault}. {remedy}")


def _unevaluated(run, iteration):
    if not any("eval_accuracy" in line for line in run.history):
        return "was not evaluated"
    return f"is under way: iteration {iteration} is not evaluated"


def group_runs(paths: Sequence) -> dict[str, list[ComparedRun]]:
    """The runs of each method, by its name.

    Args:
        paths: The run directories. The name of a method is that of a directory, without
            the run's seed at its end: `star_1` and `star_seed1` are `star`.

    Raises:
        ValueError: see `read_run`; if runs differ in task, held-out problems or base
            model, or those of a method in anything but their seeds.
    """
    methods: dict[str, list[ComparedRun]] = {}
    first = None
    for path in paths:
        run = read_run(path)
        first = first or run
        for name, remedy in _COMMON.items():
            if run.common[name] != first.common[name]:
                raise ValueError(
                    f"The runs {first.path} and {run.path} differ in their {name}. "
                    f"{remedy}"
                )
        own = methods.setdefault(run.method, [])
        if own:
            _check_method(own, run)
        own.append(run)
    return methods


def _check_method(own, run):
    there, here = own[0].settings, run.settings
    names = sorted(
        name for name in {**there, **here} if there.get(name) != here.get(name)
    )
    fault = f"other values of {', '.join(names)}" if names else ""
    if len(run.points) != len(own[0].points):
        fault = f"{len(run.points) - 1} iterations instead of {len(own[0].points) - 1}"
    if run.seed in [other.seed for other in own]:
        fault = f"the seed {run.seed} of another one"
    if fault:
        raise invalid(
            "run_dirs",
            f"runs of the method {run.method!r} that differ from {own[0].path} in "
            "their seeds alone",
            run.path,
            f"This one has {fault}. Leave it out, or give it the name of a method of "
            "its own.",
        )


def comparison_table(
    methods: Mapping[str, Sequence[ComparedRun]], tokens: int | None = None
) -> str:
    """Two tables in Markdown: the methods, and the commands of their runs.

    Accuracies are means over the seeds, with the standard deviation.

    Args:
        methods: See `group_runs`.
        tokens: The budget of the first accuracy, sampled and trained tokens: of each
            run counts the last iteration that needed no more. Defaults to `None`, for
            the tokens of the run that has spent the fewest.
    """
    fewest = min(run.points[-1][0] for runs in methods.values() for run in runs)
    budget = fewest if tokens is None else tokens
    titles = ["method", "seeds", "iterations", f"accuracy at {budget:,} tokens"]
    titles += ["final accuracy", "sampled tokens", "trained tokens", "time"]
    rows = [
        [
            method,
            ", ".join(str(run.seed) for run in runs),
            str(len(runs[0].points) - 1),
            _mean_and_spread([run.accuracy_at(budget) for run in runs]),
            _mean_and_spread([run.points[-1][1] for run in runs]),
            f"{statistics.fmean(run.sampled for run in runs):,.0f}",
            f"{statistics.fmean(run.trained for run in runs):,.0f}",
            format_seconds(statistics.fmean(run.seconds for run in runs)),
        ]
        for method, runs in methods.items()
    ]
    commands = [
        [run.path, *(str(run.command.get(k) or "") for k in _COMMAND)]
        for runs in methods.values()
        for run in runs
    ]
    return f"{_table(titles, rows)}\n{_table(['run', *_COMMAND], commands)}"


_COMMAND = ("version", "commit", "command")


def _mean_and_spread(shares):
    text = f"{statistics.fmean(shares):.1%}"
    if len(shares) > 1:
        text += f" ± {100 * statistics.stdev(shares):.1f}"
    return text


def _table(titles, rows):
    lines = [titles, ["---"] * len(titles), *rows]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def write_comparison(
    paths: Sequence, directory, tokens: int | None = None, evaluations: Sequence = ()
) -> str:
    """Write `comparison.md` and `comparison.png`.

    Args:
        paths: The run directories.
        directory: Where the files go, local or `gs://`; made if needed.
        tokens: See `comparison_table`.
        evaluations: Directories of evaluations, for a further table.

    Returns:
        The tables.

    Raises:
        ValueError: see `group_runs` and `evaluation_rows`.
        OSError: if a file cannot be written; names it.
    """
    methods = group_runs(paths)
    table = comparison_table(methods, tokens)
    if evaluations:
        (first, *_), *_ = methods.values()
        held_out = [problem for problem, *_ in first.common["held-out problems"]]
        table += f"\n{_table(TITLES, evaluation_rows(evaluations, held_out))}"
    directory = files.absolute("output", directory)
    directory.mkdir(parents=True, exist_ok=True)
    files.write(directory / "comparison.md", table.encode("utf-8"))
    lines = {method: [run.points for run in runs] for method, runs in methods.items()}
    plots.plot_over_tokens(lines, directory / "comparison.png")
    return table
