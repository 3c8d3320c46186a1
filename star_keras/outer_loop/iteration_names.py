"""The names of an iteration's directories in a run directory."""

import re

from etils import epath


def iteration_name(iteration: int) -> str:
    """E.g. `"iteration_0001"`."""
    return f"iteration_{iteration:04d}"


def iteration_of(name: str) -> int | None:
    """The iteration of a name that begins like one of `iteration_name`."""
    match = re.match(r"iteration_(\d+)", name)
    return int(match[1]) if match else None


def iteration_directories(root: epath.Path) -> dict[int, epath.Path]:
    """The directories with a name of `iteration_name`, by their iterations in order.

    Args:
        root: Holds them, local or `gs://`; none if there is no such directory.

    Raises:
        OSError: if it cannot be read.
    """
    found = {}
    for directory in root.iterdir() if root.is_dir() else ():
        number = directory.name.removeprefix("iteration_")
        if directory.name.startswith("iteration_") and number.isdecimal():
            found[int(number)] = directory
    return dict(sorted(found.items()))
