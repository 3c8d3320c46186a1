"""Files that appear whole or not at all, on a disk or in a bucket."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterable

from etils import epath

from star_keras.utils.errors import invalid


def absolute(name: str, path) -> epath.Path:
    """A path that stays the same wherever the program works.

    Args:
        name: The argument, for the error.
        path: Local or `gs://` path; `~` is the user's home.

    Raises:
        ValueError: if it is empty, no path, the root of the file system, or of another
            kind, such as `http://`, or if the home of a `~` is not known.
    """
    if not isinstance(path, str | os.PathLike) or not str(path).strip():
        raise invalid(name, "the path of a file or directory", path)
    if "\0" in str(path):
        raise invalid(name, "a path without a null character", str(path))
    scheme, is_remote, place = str(path).partition("://")
    if is_remote and (scheme != "gs" or not place.strip("/")):
        raise invalid(name, "a local path, or one like gs://BUCKET/NAME", str(path))
    path = epath.Path(path).expanduser()
    if not _is_local(path):
        return path
    if str(path).startswith("~"):
        raise invalid(name, "a path in a home that is known", str(path), "Set HOME.")
    if os.path.realpath(path) == os.path.realpath(os.sep):
        rule = "a path below the root of the file system"
        raise invalid(name, rule, str(path), "Name a directory or a file in it.")
    return path.absolute()


def size(path) -> int:
    """Bytes of a file.

    Args:
        path: The file, an `etils.epath.Path`.

    Raises:
        OSError: if it cannot be read.
    """
    # The `stat` of a local `epath.Path` fails for an owner without a name.
    if _is_local(path):
        return pathlib.Path(path).stat().st_size
    return path.stat().length


def read_utf8(path) -> str:
    """The text of a file; a byte order mark is left out.

    Args:
        path: The file, a `pathlib.Path`.

    Raises:
        ValueError: if it is not UTF-8; names the file and the byte.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8. Expected UTF-8. Received the byte "
            f"{error.object[error.start]:#04x} at {error.start}. Convert the file, "
            "e.g. by `iconv -f LATIN1 -t UTF-8`."
        ) from None


def write(path, content: bytes):
    """Write a file; a kill leaves the old one or the new.

    Args:
        path: Local path or, where `etils.epath` can write to it, a `gs://` one.
        content: The new content.

    Raises:
        OSError: if it cannot be written; names the file.
    """
    write_pieces(path, [content])


def write_pieces(path, pieces: Iterable[bytes]):
    """Write a file piece by piece; see `write`."""
    path = epath.Path(path)
    partial = path.with_name(path.name + ".partial")
    _write(partial, pieces, "wb")
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
    _write(epath.Path(path), [content], "ab")


def _write(path, pieces, mode):
    with _named_errors(path), path.open(mode) as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        if _is_local(path):
            os.fsync(file.fileno())


@contextlib.contextmanager
def _named_errors(path):
    try:
        yield
    except OSError as error:
        raise unwritable(error, path) from error


def unwritable(error: Exception, path) -> OSError:
    """The error of a file that cannot be written, with the remedy.

    Args:
        error: Its cause.
        path: The file or directory.
    """
    cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return OSError(
        getattr(error, "errno", None) or errno.EIO,
        f"{cause}. What was written before is safe: make room, or make the directory "
        "writable, and give the same command again",
        str(path),
    )


def _is_local(path):
    return "://" not in str(path)
