"""The files of a checkpoint: recorded when it is complete, checked when it is read."""

import concurrent.futures
import dataclasses
import json

from star_keras.utils import files
from star_keras.utils.digests import Digest
from star_keras.utils.json_lines import read_json_object
from star_keras.utils.records import make_record

_NAME = "files.json"


def record_files(path, *, checksums: bool):
    """Write sizes and check sums of a checkpoint's files into `files.json` in it.

    Args:
        path: The directory of the checkpoint, an `etils.epath.Path`.
        checksums: Whether to read the files for their check sums.

    Raises:
        OSError: if it cannot be written; names the file.
    """
    found = _digests(path, checksums=checksums)
    recorded = {name: dataclasses.asdict(digest) for name, digest in found.items()}
    content = {"checksums": checksums, "files": recorded}
    files.write(path / _NAME, json.dumps(content, indent=1).encode())


def check_files(path):
    """Check that a checkpoint has the files that were recorded.

    No-op without `files.json`, which is missing after a kill right after a save.

    Args:
        path: The directory of the checkpoint, an `etils.epath.Path`.

    Raises:
        ValueError: if a file is missing or has other content; names it.
    """
    record = path / _NAME
    if not record.exists():
        return
    content = read_json_object(record)
    recorded, checksums = content.get("files"), content.get("checksums")
    if not isinstance(recorded, dict) or not isinstance(checksums, bool):
        raise ValueError(f"{record} holds no record of files.")
    expected = {}
    for name, values in recorded.items():
        if not isinstance(values, dict):
            raise ValueError(f"{record}: {values!r} is no record of {name!r}.")
        expected[name] = make_record(Digest, values, f"{record}, {name}")
    # Buckets have check sums of their own.
    found = _digests(path, checksums=checksums and "://" not in str(path))
    for name, digest in sorted(expected.items()):
        if name not in found:
            raise ValueError(f"{path / name} is missing.")
        if found[name].bytes != digest.bytes:
            size = found[name].bytes
            raise ValueError(
                f"{path / name} has {size} bytes, {digest.bytes} were written."
            )
        if found[name].crc32 not in (0, digest.crc32):
            raise ValueError(f"{path / name} was changed since it was written.")


def _digests(path, *, checksums):
    paths = sorted(p for p in _walk(path) if p.name != _NAME)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda p: Digest.of_file(p, checksum=checksums), paths)
        return {str(p.relative_to(path)): d for p, d in zip(paths, found, strict=True)}


def _walk(directory):
    for path in directory.iterdir():
        yield from _walk(path) if path.is_dir() else (path,)
