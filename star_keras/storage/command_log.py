"""The commands that worked in a run directory, in `commands.jsonl`."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import star_keras
from star_keras.utils import files
from star_keras.utils.json_lines import append_json_lines, read_json_lines

_NAME = "commands.jsonl"
_ROOT = Path(star_keras.__file__).parents[1]


def record_command(directory, arguments: Sequence[str]):
    """Append a command; no-op if it is the last one.

    A line has `command`, `version` (of star-keras) and `commit`. `commit` is `null` for
    an installed package, and ends in `-dirty` if files differ from the commit.

    Args:
        directory: The run directory, local or `gs://`.
        arguments: The words of the command.

    Raises:
        OSError: if the file cannot be written; names it.
        ValueError: if a line of it is malformed; names it.
    """
    line = {
        "command": shlex.join(arguments),
        "version": star_keras.__version__,
        "commit": _commit(),
    }
    if read_commands(directory)[-1:] != [line]:
        append_json_lines(files.absolute("run_dir", directory) / _NAME, [line])


def read_commands(directory) -> list[dict]:
    """The lines of `record_command`; none for a run from Python.

    Raises:
        ValueError: if a line is malformed; names it.
    """
    path = files.absolute("run_dir", directory) / _NAME
    return read_json_lines(path, {"command", "version", "commit"})


def _commit():
    if not (_ROOT / ".git").exists():
        return None
    options = ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    command = ["git", "--no-optional-locks", "-C", str(_ROOT), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):  # e.g. git is not installed
        return None
    return done.stdout.strip() or None
