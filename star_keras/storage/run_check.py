"""The files of a run directory, their damage, and where a run would continue."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from etils import epath

from star_keras.config import StarConfig
from star_keras.storage.discarded import beyond_manifest
from star_keras.storage.iteration_names import (
    iteration_directories,
    iteration_name,
    iteration_of,
    state_of,
)
from star_keras.storage.manifest import (
    PHASES,
    read_beginning,
    read_manifest,
    recorded_files,
    trained_iterations,
)
from star_keras.storage.records import FINISHED_NAMES
from star_keras.storage.run_configuration import read_configuration
from star_keras.storage.run_directory import RunDirectory
from star_keras.utils import files
from star_keras.utils.json_lines import json_line_bytes, whole_lines
from star_keras.utils.settings import groups_of, settings_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One file or directory of a run.

    Attributes:
        path: The file or directory.
        text: What it holds; if it is damaged, what is wrong and the remedy.
        is_damaged: Whether a run would stop at it, or lose something.
        mend: Mends the damage, and returns what was done; `None` if the remedy is
            a decision of the user, or nothing is damaged.
        stops: Whether a run would stop at its start.
    """

    path: epath.Path
    text: str
    is_damaged: bool = False
    mend: Callable[[], str] | None = None
    stops: bool = False


def check_run(run: RunDirectory) -> list[Finding]:
    """Look at all files of a run, and change nothing.

    Args:
        run: The run directory; not open.

    Returns:
        A `Finding` for each file and checkpoint.
    """
    manifest = _manifest(run)
    findings = [_configuration(run), manifest]
    # The files are compared with the lines before a damaged one.
    run.samples.finished.recorded = recorded_files(read_beginning(run.manifest))
    with contextlib.suppress(ValueError):
        findings.append(_metrics(run))
    findings += _samples(run, is_recorded=not manifest.is_damaged)
    return [*findings, *_checkpoints(run), *_leftovers(run)]


def next_step(run: RunDirectory) -> str:
    """Where a run would continue.

    Args:
        run: The run directory; not open.

    Raises:
        ValueError: if its configuration or its manifest is damaged. Damage of other
            files is not looked at, see `Finding.stops`.
    """
    done = run.trained
    if done and not run.is_done(done, "evaluate"):
        return f"the evaluation of iteration {done}"
    iteration = done + 1
    phases = [name for name in PHASES if run.is_done(iteration, name)]
    if "pack" in phases:
        states = filter(None, map(state_of, run.checkpoints.training.names()))
        step = max((step for own, step in states if own == iteration), default=0)
        return f"iteration {iteration}, after step {step} of its training"
    last = f"after its phase {phases[-1]!r}" if phases[1:] else "from its start"
    return f"iteration {iteration}, {last}"


def _configuration(run):
    path = run.path / "config.json"
    try:
        found = read_configuration(run.path)
    except ValueError as error:
        return Finding(path=path, text=str(error), is_damaged=True, stops=True)
    if found is not None:
        text = f"{len(found)} groups of settings"
        if wrong := list(_wrong_settings(found)):
            text = (
                f"not the settings of this version: {', '.join(wrong)}. Put the file "
                "back, or remove it: the command of the run writes it again, without "
                "the check that the configuration is the same."
            )
        return Finding(path=path, text=text, is_damaged=bool(wrong), stops=bool(wrong))
    return Finding(
        path=path,
        text="missing; the command of the run writes it again, without the check that "
        "the configuration is the same",
        is_damaged=run.manifest.exists(),
    )


def _wrong_settings(found):
    """Names of settings and groups that a configuration has too many or lacks."""
    for group, cls in groups_of(StarConfig).items():
        names = {item.name for item in settings_of(cls)}
        values = found.get(group)
        if isinstance(values, dict):
            yield from sorted(names ^ values.keys())
        else:
            yield group


def _manifest(run):
    path = run.manifest
    try:
        phases = read_manifest(path)
    except ValueError as error:
        text = f"{error} Put the file back, or mend it: the lines before it stay."
        return Finding(
            path=path, text=text, is_damaged=True, mend=lambda: _cut_manifest(path)
        )
    if not phases and not _damaged_manifest(path).exists() and _has_phases(run):
        text = (
            "records nothing, though there are files of finished phases. Put the file "
            "back. A run without it starts over, and moves them to discarded-<n>/"
        )
        return Finding(path=path, text=text, is_damaged=True)
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        return Finding(
            path=path,
            text=f"{len(phases)} phases, and a line cut short; a run goes on before it",
            is_damaged=True,
            mend=lambda: _cut_manifest(path),
        )
    return Finding(path=path, text=f"{len(phases)} finished phases")


def _has_phases(run):
    """Whether there are files that a run without finished phases does not have."""
    metrics = run.path / "metrics.jsonl"
    return (
        (metrics.exists() and files.size(metrics) > 0)
        or run.checkpoints.weights.names()
        or beyond_manifest({}, run.samples.directory, run.checkpoints)
    )


def _damaged_manifest(path):
    """Where a damaged manifest stays after its mend."""
    return path.with_name("manifest.damaged.jsonl")


def _cut_manifest(path):
    """Keep the lines before the first damaged one."""
    content = path.read_bytes()
    lines = whole_lines(content)
    damaged = _damaged_manifest(path)
    files.write(damaged, content)
    count = len(read_beginning(path))
    files.write(path, b"".join(line + b"\n" for line in lines[:count]))
    return f"kept {count} lines; the old file is {damaged}"


def _metrics(run):
    path = run.path / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    if content == json_line_bytes(run.history):
        return Finding(path=path, text=f"{len(run.history)} iterations")

    def mend():
        run.write_metrics()
        return "written anew"

    text = "is not what the manifest says; a run writes it anew"
    # The metrics of a lost manifest are nowhere else.
    return Finding(
        path=path, text=text, is_damaged=True, mend=mend if run.history else None
    )


def _samples(run, is_recorded) -> Iterator[Finding]:
    """Findings of the samples; `is_recorded`: whether the manifest is whole."""
    finished = run.samples.finished
    root, names = finished.directory, set(finished.recorded)
    faults = finished.faults()
    for iteration, directory in iteration_directories(root).items():
        names |= {(iteration, path.name) for path in directory.iterdir()}
    for iteration, name in sorted(names):
        path = finished.path(iteration, name)
        try:
            found = _entries(run.samples, iteration, name)
        except ValueError as error:
            # A run writes again whatever is not recorded. The lost lines of a
            # manifest, which may be put back, have recorded all but journals.
            mends = (iteration, name) not in finished.recorded and (
                is_recorded or name not in FINISHED_NAMES
            )
            yield Finding(
                path=path,
                text=str(error),
                is_damaged=True,
                mend=(lambda path=path: _set_aside(path)) if mends else None,
                stops=(iteration, name) in faults,
            )
        else:
            if found is not None:
                yield Finding(path=path, text=f"{len(found)} entries")


def _entries(store, iteration, name):
    """What a file of samples holds; `None` for another file."""
    journal = name.removesuffix(".journal.jsonl")
    if f"{journal}.jsonl" in FINISHED_NAMES and journal != name:
        return store.load_journal(iteration, journal)
    if name not in FINISHED_NAMES:
        return None
    if name == "selection.jsonl":
        return store.load_selection(iteration)
    if name.endswith(".json"):
        return store.load_pairs(iteration, name.removesuffix(".json"))
    return store.load(iteration, name.removesuffix(".jsonl"))


def _set_aside(path):
    path.rename(path.with_name(path.name + ".damaged"))
    return f"renamed to {path.name}.damaged; a run samples again"


def _checkpoints(run) -> Iterator[Finding]:
    with contextlib.suppress(ValueError):
        done = run.trained
        name = iteration_name(done)
        if done and name not in run.checkpoints.weights.names():
            yield _weights(run, done)
    for name in run.checkpoints.weights.names():
        iteration = iteration_of(name)
        if iteration is not None:
            yield _weights(run, iteration)
    for name in run.checkpoints.training.names():
        path = run.checkpoints.training.directory / name
        try:
            count = len(run.checkpoints.training.check(name))
        except ValueError as error:
            text = f"{error} A run can go on from an earlier step without it."
            yield Finding(
                path=path, text=text, is_damaged=True, mend=lambda p=path: _remove(p)
            )
        else:
            yield Finding(path=path, text=f"{count} variables")


def _weights(run, iteration):
    path = run.checkpoints.weights.directory / iteration_name(iteration)
    try:
        count = len(run.checkpoints.check_weights(iteration))
    except ValueError as error:
        # Earlier weights are read only by a rewind.
        is_last = iteration == trained_iterations(read_beginning(run.manifest))
        return Finding(path=path, text=str(error), is_damaged=True, stops=is_last)
    return Finding(path=path, text=f"{count} variables")


def _leftovers(run) -> Iterator[Finding]:
    checkpoints = run.checkpoints
    found = [*checkpoints.weights.unfinished(), *checkpoints.training.unfinished()]
    found += run.path.glob("*.partial")
    found += run.samples.directory.glob("*/*.partial")
    for path in sorted(found):
        yield Finding(
            path=path,
            text="unfinished save; can be removed",
            is_damaged=True,
            mend=lambda path=path: _remove(path),
        )


def _remove(path):
    if path.is_dir():
        path.rmtree()
    else:
        path.unlink()
    return "removed"
