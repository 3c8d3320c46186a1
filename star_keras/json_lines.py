"""JSON-lines files: read with errors that name the line, written durably.

Of several processes one writes, and hands what it reads to the others.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from star_keras import processes


def write_json_lines(path: Path, records: Iterable[dict], mode: str = "w"):
    """Write or (`mode="a"`) append lines, and wait until they are on disk."""
    if not processes.is_writer():
        return
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    with path.open(mode, encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def replace_json_lines(path: Path, records: Iterable[dict]):
    """Replace the lines of a file; a kill leaves the old ones or the new."""
    if not processes.is_writer():
        return
    partial = path.with_name(path.name + ".partial")
    write_json_lines(partial, records)
    partial.replace(path)


def read_json_lines(
    path: Path, fields: set[str], *, exactly: bool = False
) -> list[dict]:
    """Read a JSON-lines file that this package appends to.

    Args:
        path: The file. One that does not exist has no lines.
        fields: The names that each line must have, at least.
        exactly: Whether a line may have no others.

    Raises:
        ValueError: if a line is not a JSON object with these fields. A last
            line without its newline is what a kill left behind: it is cut off
            the file instead.
    """
    content = processes.from_writer(lambda: _whole_lines(path))
    records = []
    for number, line in enumerate((content or b"").splitlines(), start=1):
        record = parse_json_line(line, fields, path, number)
        if exactly and record.keys() != fields:
            raise ValueError(
                f"{path}, line {number}: unknown fields "
                f"{sorted(record.keys() - fields)}. Expected {sorted(fields)}. The "
                "file is of another version; use another directory."
            )
        records.append(record)
    return records


def _whole_lines(path):
    if not path.exists():
        return None
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    return content[:end]


def parse_json_line(line, fields: set[str], path, number: int) -> dict:
    """Parse one line that must be a JSON object with certain fields.

    Raises:
        ValueError: naming the file, the line and what is wrong with it.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not valid JSON ({error}).") from None
    if not isinstance(record, dict):
        raise ValueError(
            f"{path}, line {number}: expected a JSON object. Received: {record!r}."
        )
    missing = sorted(fields - record.keys())
    if missing:
        raise ValueError(
            f"{path}, line {number}: missing {', '.join(map(repr, missing))}. "
            f"Expected the fields {sorted(fields)}. Received: {sorted(record)}."
        )
    return record
