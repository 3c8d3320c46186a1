"""The manifest of a run: its finished phases, their metrics and their files."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping

from star_keras.storage.records import FINISHED_NAMES
from star_keras.utils import files
from star_keras.utils.digests import Digest
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import parse_json_line, whole_lines
from star_keras.utils.records import is_count, make_record

# The phases of an iteration, in their order.
PHASES = ("begin", "sample", "rationalize", "select", "pack", "train", "evaluate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """What is recorded of a finished phase.

    Attributes:
        metrics: Numbers by name, NaN included.
        files: Digests of the files of samples that it wrote, by their names.
    """

    metrics: Mapping[str, float]
    files: Mapping[str, Digest] = dataclasses.field(default_factory=dict)


# The finished phases, in the order in which they finished.
Phases = dict[tuple[int, str], Phase]


def existing_run(name: str, path):
    """The directory of a run, an `etils.epath.Path`.

    Args:
        name: The argument, for the error.
        path: The directory, local or `gs://`; `~` is the user's home.

    Raises:
        ValueError: if there is no such directory, or it is not that of a run.
    """
    directory = files.absolute(name, path)
    manifest = directory / "manifest.jsonl"
    if not (manifest.exists() or (directory / "samples").is_dir()):
        rule = "the directory of a run, with a manifest.jsonl"
        remedy = "experiments.star writes such a directory."
        raise invalid(name, rule, str(path), remedy)
    return directory


def read_manifest(path) -> Phases:
    """Read the finished phases of a run.

    Args:
        path: The file, an `etils.epath.Path`. A missing file has none. A last line
            that was cut short by a kill is ignored.

    Raises:
        ValueError: if a line is malformed, or a line is missing before it; names
            the file and the line. A missing `rationalize` is not noticed, nor a
            missing evaluation of the base model before the next one.
    """
    return dict(_read(path))


def read_beginning(path) -> Phases:
    """The phases of a manifest before its first damaged line; see `read_manifest`."""
    phases: Phases = {}
    with contextlib.suppress(ValueError):
        for key, phase in _read(path):
            phases[key] = phase
    return phases


def _read(path) -> Iterator[tuple[tuple[int, str], Phase]]:
    lines, damage = [], None
    try:
        for line in _lines(path):
            lines.append(line)
    except ValueError as error:
        damage = error
    evaluates = any(i and "evaluation.jsonl" in p.files for _, (i, _), p in lines)
    phases: Phases = {}
    for where, key, phase in lines:
        if key in phases:
            raise ValueError(f"{where}: phase {key[1]!r} of iteration {key[0]} twice.")
        expected = _next_phases(phases, evaluates)
        if key not in expected:
            names = " or ".join(f"{name!r} of iteration {i}" for i, name in expected)
            raise ValueError(
                f"{where}: expected phase {names}. Received: {key[1]!r} of iteration "
                f"{key[0]}. Lines are missing."
            )
        phases[key] = phase
        yield key, phase
    if damage is not None:
        raise damage


def _lines(path) -> Iterator[tuple[str, tuple[int, str], Phase]]:
    """The place of each line, and what it says."""
    name = str(path)
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(whole_lines(content), start=1):
        record = parse_json_line(line, {"iteration", "phase"}, name, number)
        where = f"{name}, line {number}"
        yield where, *_parse(record, where)


def _next_phases(phases: Phases, evaluates: bool) -> list[tuple[int, str]]:
    """The phases of which one comes next.

    Args:
        phases: The phases so far.
        evaluates: Whether the run is known to evaluate. The base model is then
            evaluated before the first training. That is the first phase, or a later
            one if its line was lost.
    """
    base = (0, PHASES[-1])
    iteration, last = next((key for key in reversed(phases) if key != base), base)
    if last == PHASES[-1]:
        expected = [(iteration + 1, PHASES[0])]
    else:
        # Runs without hints have no phase "rationalize".
        count = 2 if last == "sample" else 1
        first = PHASES.index(last) + 1
        expected = [(iteration, name) for name in PHASES[first : first + count]]
    if base in phases or trained_iterations(phases):
        return expected
    if evaluates and expected == [(1, "train")]:
        return [base]
    return [base, *expected]


def trained_iterations(phases: Phases) -> int:
    """The last trained iteration; 0 before the first."""
    return max((i for i, phase in phases if phase == "train"), default=0)


def recorded_files(phases: Phases) -> dict[tuple[int, str], Digest]:
    """Digests of the files of all phases, by `(iteration, name)`."""
    return {
        (iteration, name): digest
        for (iteration, _), phase in phases.items()
        for name, digest in phase.files.items()
    }


def manifest_line(iteration: int, name: str, phase: Phase) -> dict:
    """The line of a finished phase, as JSON."""
    # JSON has no NaN.
    metrics = {k: v if v == v else None for k, v in phase.metrics.items()}
    files = {k: dataclasses.asdict(digest) for k, digest in phase.files.items()}
    written = {"files": files} if files else {}
    return {"iteration": iteration, "phase": name, **written, **metrics}


def metrics_of(phases: Phases, iteration: int) -> dict[str, float]:
    """Metrics of the finished phases of an iteration, NaN included."""
    return {
        name: value
        for phase in PHASES
        if (iteration, phase) in phases
        for name, value in phases[iteration, phase].metrics.items()
    }


def history_of(phases: Phases) -> list[dict]:
    """Metrics of each finished iteration and its number, without NaN."""
    return [
        {"iteration": iteration}
        | {k: v for k, v in metrics_of(phases, iteration).items() if v == v}
        for iteration, phase in sorted(phases)
        if phase == PHASES[-1]
    ]


def _parse(line, where):
    iteration, name = line.pop("iteration"), line.pop("phase")
    if not is_count(iteration):
        raise ValueError(f"{where}: {iteration!r} is no number of an iteration.")
    if name not in PHASES:
        raise ValueError(f"{where}: {name!r} is no phase. Expected one of {PHASES}.")
    files = line.pop("files", {})
    if not isinstance(files, dict) or not all(
        name in FINISHED_NAMES and isinstance(digest, dict)
        for name, digest in files.items()
    ):
        raise ValueError(
            f"{where}: `files` holds {files!r}. Expected digests of some of "
            f"{FINISHED_NAMES}."
        )
    for metric, value in line.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"{where}: metric {metric!r} is {value!r}, no number.")
    phase = Phase(
        metrics={k: math.nan if v is None else v for k, v in line.items()},
        files={k: make_record(Digest, digest, where) for k, digest in files.items()},
    )
    return (iteration, name), phase
