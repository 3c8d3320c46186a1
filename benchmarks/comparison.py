"""Comparisons: the rows of a table, each measured in a process of its own."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence

from absl import app

_TRANSFORMERS = ("torch", "transformers")
# Libraries of a peer that this package does not install.
_LIBRARIES = {
    "transformers": _TRANSFORMERS,
    "transformers_prefix": _TRANSFORMERS,
}


def missing_libraries(name: str) -> str:
    """Why a row cannot be measured, and what to do; `""` if it can."""
    missing = [x for x in _LIBRARIES.get(name, ()) if not importlib.util.find_spec(x)]
    if not missing:
        return ""
    return (
        f"{name} needs {' and '.join(missing)}. Install the extra: "
        'pip install -e ".[transformers]"'
    )


def choose(names: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The rows to measure.

    Args:
        names: The rows of the benchmark.
        wanted: Some of them. Defaults to those whose libraries are installed;
            prints the others.

    Raises:
        app.UsageError: if a wanted row does not exist.
        SystemExit: if a wanted row lacks a library.
    """
    for name in wanted or ():
        if name not in names:
            raise app.UsageError(
                f"--peers has {name!r}. Expected some of {list(names)}."
            )
        if reason := missing_libraries(name):
            raise SystemExit(reason)
    if wanted:
        return list(wanted)
    chosen = []
    for name in names:
        if reason := missing_libraries(name):
            print(f"Left out: {reason}", flush=True)
        else:
            chosen.append(name)
    return chosen


def measure_alone(module: str, arguments: Sequence[str], name: str) -> dict:
    """Run `python -m module --peer=name`.

    Args:
        module: The benchmark.
        arguments: Its other flags.
        name: The row.

    Returns:
        The JSON object in the last line that the process prints.

    Raises:
        SystemExit: if the process fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, f"--peer={name}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{name} failed with exit code {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])
