"""Files that a run sets aside: moved to `discarded-<n>/`, never removed."""

import warnings
from collections.abc import Iterable

from star_keras.storage.iteration_names import (
    iteration_directories,
    iteration_of,
    state_of,
)
from star_keras.storage.manifest import Phases, recorded_files, trained_iterations
from star_keras.storage.run_checkpoints import RunCheckpoints

# The phase that is recorded before a file of samples, or its journal, is written.
_BEFORE = {
    "rationale": "begin",
    "direct": "begin",
    "rationalization": "sample",
    # Both phases may sample in turn until there is enough.
    "rationalization.journal.jsonl": "begin",
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

    Returns:
        The new directory.

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
    return discarded


def discard_beyond_manifest(
    directory, phases: Phases, samples, checkpoints: RunCheckpoints
):
    """Move the files of `beyond_manifest`, which a later run would take for its own.

    Warns if they are more than an evaluation, which alone is usual after a kill.

    Args:
        directory: The run directory, an `etils.epath.Path`.
        phases, samples, checkpoints: See `beyond_manifest`.

    Raises:
        OSError: if a file cannot be moved.
    """
    found = beyond_manifest(phases, samples, checkpoints)
    if not found:
        return
    discarded = discard(directory, found)
    if any(not path.name.startswith("evaluation.") for path in found):
        warnings.warn(
            f"Files of phases that {directory / 'manifest.jsonl'} does not record were "
            f"moved to {discarded}, with a copy of metrics.jsonl. The run makes them "
            "again. If the manifest was lost or cut, end the run, and put the manifest "
            "and these files back.",
            stacklevel=3,
        )


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
    return [
        *_weights(phases, checkpoints.weights),
        *_states(phases, checkpoints.training),
        *_samples(phases, samples),
    ]


def _weights(phases, weights):
    for name in weights.names():
        if (iteration_of(name) or 0) > trained_iterations(phases) + 1:
            yield weights.directory / name


def _states(phases, training):
    for name in training.names():
        iteration, _ = state_of(name) or (0, 0)
        is_trained = iteration <= trained_iterations(phases)
        if not is_trained and (iteration, "pack") not in phases:
            yield training.directory / name


def _samples(phases, samples):
    """Directories of iterations, and files of those that have begun."""
    recorded = recorded_files(phases)
    for iteration, directory in iteration_directories(samples).items():
        if iteration > trained_iterations(phases) + 1:
            yield directory
        elif iteration:
            for path in sorted(directory.iterdir()):
                name = path.name
                before = _BEFORE.get(name) or _BEFORE.get(name.partition(".")[0])
                begun = before is None or (iteration, before) in phases
                if not begun and (iteration, name) not in recorded:
                    yield path
