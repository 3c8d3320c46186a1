"""Outputs of the scripts: checked at the start, written whole at the end."""

import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from etils import epath

from star_keras.utils.errors import invalid


def make_directory(name: str, path: str):
    """Make a directory, so that an unusable one is found before any work.

    Args:
        name: The argument, for the error.
        path: Local or `gs://` path.

    Raises:
        ValueError: if it cannot be made or written to.
    """
    fault = "not writable"
    try:
        epath.Path(path).mkdir(parents=True, exist_ok=True)
        if "://" in path or os.access(path, os.W_OK):
            return
    except FileExistsError:
        fault = "a file is there"
    except OSError as error:
        fault = error.strerror
    rule = f"a directory that can be made and written to ({fault})"
    raise invalid(name, rule, path, "Name another.")


def make_new_directory(name: str, path: str, replaced: Collection[str] = ()):
    """Make a directory that is not there, or empty; see `make_directory`.

    Args:
        name: The argument, for the error.
        path: Local or `gs://` path.
        replaced: Names of files that it may hold, which the script replaces.

    Raises:
        ValueError: if it holds other files, or cannot be made or written to.
    """
    directory = epath.Path(path)
    found = {x.name for x in directory.iterdir()} if directory.is_dir() else set()
    others = sorted(found - set(replaced))
    if others:
        rule = f"a new or an empty directory, not one that holds {others[0]!r}"
        raise invalid(name, rule, path, "Name another.")
    make_directory(name, path)


def check_file(name: str, path: str, kind: str, mark: str):
    """Check that a file can be written, and make its directory.

    Args:
        name: The argument, for the error.
        path: Local or `gs://` path.
        kind: What the script writes, e.g. `"report"`. It may replace another one.
        mark: Text within the first 1,000 bytes of each file of this kind.

    Raises:
        ValueError: if a directory or a file of another kind is there, or the directory
            of the file cannot be made or written to.
    """
    file = epath.Path(path)
    make_directory(name, str(file.parent))
    if file.exists():
        beginning = b""
        if not file.is_dir():
            with file.open("rb") as opened:
                beginning = opened.read(1000)
        if mark.encode("utf-8") not in beginning:
            rule = f"a new file, or a {kind} that is replaced"
            raise invalid(name, rule, path, "Name another.")


def save_directory(save: Callable[[str], None], path):
    """Write a directory, whole or not at all.

    Args:
        save: Writes into a local directory.
        path: Local or `gs://` path, an `etils.epath.Path`. What is there is replaced.
    """
    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        partial.rmtree()
    if "://" in str(path):
        # KerasHub saves to local directories alone.
        with tempfile.TemporaryDirectory() as directory:
            save(directory)
            for file in sorted(Path(directory).rglob("*.*")):
                target = partial / str(file.relative_to(directory))
                target.parent.mkdir(parents=True, exist_ok=True)
                epath.Path(file).copy(target)
    else:
        partial.mkdir(parents=True)
        try:
            save(str(partial))
        except BaseException:
            partial.rmtree()
            raise
    if path.exists():
        path.rmtree()
    partial.rename(path)
