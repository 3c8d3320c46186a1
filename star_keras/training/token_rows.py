"""Rows of token ids in TFRecord files, the training data of mesh-transformer-jax."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from star_keras.utils.files import read_utf8

_FEATURE = "text"


def is_token_rows(path: Path) -> bool:
    """Whether the name of a file is that of TFRecords, or of an index of them."""
    return path.suffix in (".tfrecord", ".tfrecords", ".index")


def read_token_rows(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Read the rows of a file, or of the files that an index lists.

    Each record is a `tf.train.Example` whose int64 feature `text` has the token ids
    of a row, documents and their end tokens one behind the other.

    Args:
        path: A file `*.tfrecords` or `*.tfrecord`, compressed by zlib if `zstd` is in
            its name; or `*.index`, a text with the path of such a file in each line.
            Relative paths start at the directory of the index.

    Yields:
        The place, e.g. `"a.tfrecords, row 1"`, and an int64 array `(length,)`.

    Raises:
        ValueError: if a file is damaged, a record has no such feature, or an index
            lists nothing; names file and row.
        FileNotFoundError: if an index lists a file that is not there.

    Reference:
        [mesh-transformer-jax](https://github.com/kingoflolz/mesh-transformer-jax),
        `tfrecord_loader.py`.
    """
    for file in _listed(path) if path.suffix == ".index" else [path]:
        compression = "ZLIB" if "zstd" in file.name else ""
        records = tf.data.TFRecordDataset(str(file), compression_type=compression)
        rows = records.as_numpy_iterator()
        number = 0
        while True:
            number += 1
            place = f"{file}, row {number}"
            try:
                content = next(rows)
            except StopIteration:
                break
            except tf.errors.OpError as error:
                raise ValueError(
                    f"{place}: no TFRecord can be read ({error.message}). Copy or "
                    "make the file again."
                ) from None
            yield place, _ids(content, place)


def _listed(index):
    lines = read_utf8(index).split("\n")
    found = [index.parent / line.strip() for line in lines if line.strip()]
    if not found:
        raise ValueError(
            f"{index}: the file is empty. Expected the path of a TFRecord file in each "
            "line."
        )
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(
                f"{index} lists the file {path}, which is not there. Correct the line; "
                "relative paths start at the directory of the index."
            )
    return found


def _ids(content, place):
    features = {}
    try:
        features = tf.train.Example.FromString(content).features.feature
        ids = features[_FEATURE].int64_list.value if _FEATURE in features else ()
    except Exception as error:  # protobuf has classes of its own for this
        raise ValueError(
            f"{place}: no `tf.train.Example` ({error}). Make the file again."
        ) from None
    if not len(ids):
        raise ValueError(
            f"{place}: expected token ids in the int64 feature {_FEATURE!r}. Received "
            f"the features {sorted(features)}. Make the file with "
            "create_finetune_tfrecords.py of mesh-transformer-jax, or pass text."
        )
    return np.asarray(ids, "int64")
