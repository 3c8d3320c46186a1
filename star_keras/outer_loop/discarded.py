"""Files that a run sets aside: moved to `discarded-<n>/`, never removed."""

from collections.abc import Iterable

from star_keras.outer_loop.iteration_names import iteration_of
from star_keras.outer_loop.manifest import Phases, trained_iterations
from star_keras.outer_loop.run_checkpoints import RunCheckpoints

# The phase that is recorded before a file of samples, or its journal, is written.
_BEFORE = {
    "rationale": "begin",
    "direct": "begin",
    "rationalization": "sample",
    "selection": "sample",
    "mastery": "sample",
    "order": "sample",
    "evaluation": "train",
}


def discard(directory, paths: Iterable):
    """Move files of a run, and copy its manifest and its metrics beside them.

    Args:
        directory: The run directory, an `etils.epath.Path`.
        paths: Files and directories within it, in the order in which they move.

    Raises:
        OSError: if one cannot be moved.
    """
    names = [path.name.split("-", 1)[1] for path in directory.glob("discarded-*")]
    number = max((int(n) for n in names if n.isdecimal()), default=0) + 1
    discarded = directory / f"discarded-{number}"
    discarded.mkdir()
    for name in ("manifest.jsonl", "metrics.jsonl"):
        if (directory / name).exists():
            (directory / name).copy(discarded / name)
    for path in paths:
        target = discarded / path.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def beyond_manifest(phases: Phases, samples, checkpoints: RunCheckpoints) -> list:
    """Files of phases that, by the manifest, cannot have begun.

    A truncated manifest leaves such files. A kill leaves only files of the phase under
    way, and weights and evaluation of a training that was not recorded yet.

    Args:
        phases: The finished phases.
        samples: The directory of the samples, an `etils.epath.Path`.
        checkpoints: The checkpoints of the run.

    Returns:
        Their paths, weights first.
    """
    trained = trained_iterations(phases)
    recorded = {
        (iteration, name)
        for (iteration, _), phase in phases.items()
        for name in phase.files
    }
    found = []
    for name in checkpoints.weights.names():
        if (iteration_of(name) or 0) > trained + 1:
            found.append(checkpoints.weights.directory / name)
    for name in checkpoints.training.names():
        iteration = iteration_of(name) or 0
        if iteration > trained and (iteration, "pack") not in phases:
            found.append(checkpoints.training.directory / name)
    for directory in sorted(samples.glob("iteration_*")) if samples.exists() else ():
        iteration = iteration_of(directory.name) or 0
        if iteration > trained + 1:
            found.append(directory)
            continue
        for path in sorted(directory.iterdir()) if iteration else ():
            before = _BEFORE.get(path.name.split(".")[0])
            if path.name == "rationalization.journal.jsonl":
                before = "begin"  # both phases sample in turn until there is enough
            is_recorded = (iteration, path.name) in recorded
            if before and not is_recorded and (iteration, before) not in phases:
                found.append(path)
    return found
