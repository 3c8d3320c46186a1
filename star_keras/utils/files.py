"""Files that appear whole or not at all, on a disk or in a bucket."""

import contextlib
import os

from etils import epath


def write(path, content: bytes):
    """Write a file; a kill leaves the old one or the new.

    Args:
        path: Local path or, where `etils.epath` can write to it, a `gs://` one.
        content: The new content.

    Raises:
        OSError: if it cannot be written; names the file.
    """
    path = epath.Path(path)
    partial = path.with_name(path.name + ".partial")
    _write(partial, content, "wb")
    partial.replace(path)
    if _is_local(path):
        # The new name is durable once its directory is.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def append(path, content: bytes):
    """Append to a file; see `write`. A kill may leave a part of `content`."""
    _write(epath.Path(path), content, "ab")


def _write(path, content, mode):
    with _named_errors(path), path.open(mode) as file:
        file.write(content)
        file.flush()
        if _is_local(path):
            os.fsync(file.fileno())


@contextlib.contextmanager
def _named_errors(path):
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror or error}. What was written before is safe: make room, "
            "or make the directory writable, and give the same command again",
            str(path),
        ) from error


def _is_local(path):
    return "://" not in str(path)
