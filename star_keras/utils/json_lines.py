"""JSON-lines files: read with errors that name the line, written durably."""

import json
import os
import reprlib
from collections.abc import Iterable

from etils import epath

from star_keras.utils import files


def append_json_lines(path, records: Iterable[dict]):
    """Append lines, and wait until they are on disk.

    Args:
        path: The file; made if needed.
        records: The new lines. A last line that a kill has cut short is
            removed first.

    Raises:
        OSError: if the file cannot be written; names the file.
    """
    path = epath.Path(path)
    if path.exists() and path.stat().length:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            is_whole = file.read(1) == b"\n"
        if not is_whole:
            content = path.read_bytes()
            files.write(path, content[: content.rfind(b"\n") + 1])
    files.append(path, json_line_bytes(records))


def write_json_lines(path, records: Iterable[dict]):
    """Write or replace a file; a kill leaves the old lines or the new ones.

    Args:
        path: The file.
        records: Its lines.

    Raises:
        OSError: if the file cannot be written; names the file.
    """
    files.write(path, json_line_bytes(records))


def json_line_bytes(records: Iterable[dict]) -> bytes:
    """The content of a file of JSON lines, UTF-8."""
    lines = (json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    return "".join(lines).encode("utf-8")


def read_json_lines(path, fields: set[str] = frozenset()) -> list[dict]:
    """Read a JSON-lines file that this package appends to.

    A last line without a newline was cut short by a kill and is ignored.

    Args:
        path: The file. A missing file has no lines.
        fields: Names that each line must have.

    Returns:
        The records in the order of the file.

    Raises:
        ValueError: if a line is not a JSON object with these fields; names the
            file and the line.
    """
    path = epath.Path(path)
    content = path.read_bytes() if path.exists() else b""
    name = str(path)
    return [
        parse_json_line(line, fields, name, number)
        for number, line in enumerate(whole_lines(content), start=1)
    ]


def whole_lines(content: bytes) -> list[bytes]:
    """The lines of a file of JSON lines, without a last one that was cut short."""
    return content[: content.rfind(b"\n") + 1].splitlines()


def read_json_object(path) -> dict:
    """Read a file that holds one JSON object.

    Args:
        path: The file.

    Raises:
        ValueError: if it holds anything else; names the file and the place.
        FileNotFoundError: if there is no such file.
    """
    path = epath.Path(path)
    return parse_json_object(path.read_bytes(), str(path))


def parse_json_object(content, where: str) -> dict:
    """Parse text that must be one JSON object.

    Args:
        content: The text, `str` or `bytes`.
        where: Its file and line, for the error.

    Raises:
        ValueError: if it is not; names `where` and the fault.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: expected a JSON object. Received: {reprlib.repr(value)}."
        )
    return value


def parse_json_line(line, fields: set[str], path, number: int) -> dict:
    """Parse one line that must be a JSON object with certain fields.

    Args:
        line: The line, `str` or `bytes`.
        fields: Names that it must have.
        path: Its file, for the error.
        number: Its number, for the error.

    Raises:
        ValueError: if it is not; names the file, the line and the fault.
    """
    where = f"{path}, line {number}"
    record = parse_json_object(line, where)
    missing = sorted(fields - record.keys())
    if missing:
        raise ValueError(
            f"{where}: missing {', '.join(map(repr, missing))}. "
            f"Expected the fields {sorted(fields)}. Received: {sorted(record)}."
        )
    return record
