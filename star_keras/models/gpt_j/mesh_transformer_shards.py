"""The shards of a checkpoint of mesh-transformer-jax: their files."""

import contextlib
import itertools
import zipfile
import zlib

import ml_dtypes
import numpy as np


def check_copies(directory, parts):
    """Check that no shard is a copy of another one.

    Args:
        directory: The checkpoint, for the error.
        parts: A matrix of each shard.

    Raises:
        ValueError: if two are equal.
    """
    for i, j in itertools.combinations(range(len(parts)), 2):
        if parts[i].any() and np.array_equal(parts[i], parts[j]):
            raise ValueError(
                f"In {directory}, shard_{j} is a copy of shard_{i}. Copy it again."
            )


class _Shard:
    """The leaves of one shard, read on demand."""

    def __init__(self, directory):
        found = {path.name: path for path in directory.glob("*.npz")}
        names = [f"{i}.npz" for i in range(len(found))]
        if found.keys() != set(names) or not found:
            raise FileNotFoundError(
                f"{directory} lacks files, or has others. Expected 0.npz, 1.npz, ... "
                f"without a gap. Found: {sorted(found)}."
            )
        self._places = []
        for path in map(found.get, names):
            with _opened(path) as file:
                self._places += [(path, key) for key in file.files]

    def __len__(self):
        return len(self._places)

    def read(self, number):
        path, key = self._places[number]
        with _opened(path) as file:
            value = file[key]
        if value.dtype == np.dtype("V2"):
            value = value.view(ml_dtypes.bfloat16)
        return value.astype("float32")


@contextlib.contextmanager
def _opened(path):
    try:
        # NumPy leaves a damaged file open that it has opened itself.
        with path.open("rb") as content, np.load(content) as file:
            yield file
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is damaged: {error}. Expected a whole npz file of arrays. Copy it "
            "again."
        ) from error


def open_shards(directory, config):
    """The shards of a checkpoint, which read their leaves on demand.

    Args:
        directory: Path of the checkpoint.
        config: dict. Its `cores_per_replica`, if there is one, is their number.

    Raises:
        ValueError: if their number is another, or a file is damaged.
        FileNotFoundError: if a shard or one of its files is missing.
    """
    found = {folder.name: folder for folder in directory.glob("shard_*")}
    names = [f"shard_{i}" for i in range(len(found))]
    if found.keys() != set(names) or not found:
        raise FileNotFoundError(
            f"{directory} is no checkpoint of mesh-transformer-jax. Expected shard_0, "
            f"shard_1, ... without a gap. Found: {sorted(found)}."
        )
    count = config.get("cores_per_replica", len(found))
    if count != len(found):
        raise ValueError(
            f"{directory} has {len(found)} shards, but cores_per_replica is {count} in "
            "`config`. Copy all shards, or correct the configuration."
        )
    shards = [_Shard(found[name]) for name in names]
    if len({len(shard) for shard in shards}) > 1:
        raise ValueError(
            f"The shards of {directory} have different numbers of leaves: "
            f"{[len(shard) for shard in shards]}. Copy them again."
        )
    return shards
