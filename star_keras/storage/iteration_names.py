"""The names of directories in a run directory: of an iteration, and of a state."""

import re

from etils import epath


def iteration_name(iteration: int) -> str:
    """E.g. `"iteration_0001"`."""
    return f"iteration_{iteration:04d}"


def iteration_of(name: str) -> int | None:
    """The iteration of a name of `iteration_name`; `None` of another name."""
    match = re.fullmatch(r"iteration_(\d+)", name)
    return int(match[1]) if match else None


def state_name(iteration: int, step: int) -> str:
    """E.g. `"iteration_0001_step_00000500"`."""
    return f"{iteration_name(iteration)}_step_{step:08d}"


def state_of(name: str) -> tuple[int, int] | None:
    """Iteration and step of a name of `state_name`; `None` of another name."""
    match = re.fullmatch(r"iteration_(\d+)_step_(\d+)", name)
    return (int(match[1]), int(match[2])) if match else None


def iteration_directories(root: epath.Path) -> dict[int, epath.Path]:
    """The directories with a name of `iteration_name`, by their iterations in order.

    Args:
        root: Holds them, local or `gs://`; none if there is no such directory.

    Raises:
        OSError: if it cannot be read.
    """
    found = {
        iteration_of(directory.name): directory
        for directory in (root.iterdir() if root.is_dir() else ())
    }
    found.pop(None, None)
    return dict(sorted(found.items()))
