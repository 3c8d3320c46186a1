"""JSON-lines files: read with errors that name the line, written durably."""

import codecs
import collections
import json
import math
import os
import re
from collections.abc import Iterable, Iterator

from etils import epath

from star_keras.utils import files
from star_keras.utils.records import is_text


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
    if path.exists() and files.size(path):
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
    files.write_pieces(path, json_lines(records))


def json_line_bytes(records: Iterable[dict]) -> bytes:
    """The content of a file of JSON lines, UTF-8."""
    return b"".join(json_lines(records))


def json_lines(records: Iterable[dict]) -> Iterator[bytes]:
    """The lines of a file of JSON lines, UTF-8, one after the other."""
    for record in records:
        yield (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")


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


def parse_json_object(content: bytes, place: str) -> dict:
    """Parse text that must be one JSON object.

    A byte order mark of UTF-8 is skipped.

    Args:
        content: The text.
        place: Its file and line, for the error.

    Raises:
        ValueError: if it is not UTF-8, no JSON object, has a name twice, or holds
            half a character (a lone surrogate) or a number too large or too small for
            a float; names the place and the fault.
    """
    return _parsed(_decoded(content, place), place)


def parse_json_line(line: bytes, fields: set[str], path, number: int) -> dict:
    """Parse one line that must be a JSON object with certain fields.

    Args:
        line: The line.
        fields: Names that it must have.
        path: Its file, for the error.
        number: Its number, for the error.

    Raises:
        ValueError: if it lacks a field, and see `parse_json_object`; names the
            file, the line and the fault.
    """
    place = f"{path}, line {number}"
    text = _decoded(line, place)
    try:
        record = _parsed(text, place)
    except ValueError as error:
        raise ValueError(
            f"{error} Correct the line: each object stands on a line of its own, "
            "without a list around them."
        ) from None
    missing = sorted(fields - record.keys())
    if missing:
        raise ValueError(
            f"{place}: missing {', '.join(map(repr, missing))}. Expected the fields "
            f"{sorted(fields)}. Received: {sorted(record)}. Add what is missing, or "
            "leave the line out."
        )
    return record


def _parsed(text, place):
    try:
        record = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{place}: not valid JSON ({error}). Expected one JSON object. Received: "
            f"{text.strip()[:200]!r}."
        ) from None
    if "\\u" in text and not is_text(json.dumps(record, ensure_ascii=False)):
        raise ValueError(
            f"{place}: a lone surrogate, which is half of a character. Expected "
            f"Unicode text. Received: {text.strip()[:200]}. A text was perhaps cut "
            "within a character like an emoji."
        )
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected a JSON object. Received: {record!r:.200}.")
    return record


def _decoded(line, place):
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in line:
        raise ValueError(
            f"{place}: not UTF-8 but UTF-16. Expected UTF-8. Received bytes that begin "
            f"with {line[:4]!r}. Convert the file, e.g. by `iconv -f UTF-16 -t UTF-8`."
        )
    try:
        return line.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place}: not UTF-8. Expected UTF-8. Received the byte "
            f"{line[error.start]:#04x} in column {error.start + 1}. Convert the file, "
            "e.g. by `iconv -f LATIN1 -t UTF-8`."
        ) from None


def _object(pairs):
    record = dict(pairs)
    if len(record) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        twice = min(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the name {twice!r} comes twice in an object")
    return record


def _float(text):
    value = float(text)
    is_zero = not re.search("[1-9]", re.split("[eE]", text)[0])
    if math.isinf(value) or (value == 0 and not is_zero):
        size = "large" if value else "small"
        raise ValueError(
            f"the number {text} is too {size} for a float, put it in quotes"
        )
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float)
