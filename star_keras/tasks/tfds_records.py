"""Records of TensorFlow Datasets, https://www.tensorflow.org/datasets."""

import contextlib
import urllib.error
import urllib.request
from collections.abc import Iterator

import numpy as np

from star_keras.tasks.record_fields import shortest_float

_SECONDS_TO_ANSWER = 5
# The library's own files. Most datasets come from other hosts.
_LIBRARY_URL = "https://storage.googleapis.com/tfds-data/"


def records_of_name(name: str, split: str) -> Iterator[dict]:
    """The records of a dataset that the library knows, see `tfds_records`.

    Args:
        name: Its name, with `/` and a configuration where it has several.
        split: Its split, e.g. `"train"` or `"train[:100]"`.

    Raises:
        ValueError: if there is no such name or split.
        ConnectionError: see `tfds_records`.
    """

    import tensorflow_datasets as tfds  # takes seconds to import

    try:
        builder = tfds.builder(name)
    except (ValueError, ImportError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"tfds://{name}: the dataset cannot be loaded ({reason}). Correct its "
            "name or configuration."
        ) from None
    remedy = "Prepare it where there is a network, and set TFDS_DATA_DIR."
    return tfds_records(builder, split, _LIBRARY_URL, remedy)


def tfds_records(builder, split: str, url: str, remedy: str) -> Iterator[dict]:
    """The records of a split of a TensorFlow dataset, downloaded if needed.

    Args:
        builder: Its `tfds.core.DatasetBuilder`.
        split: Name of the split there.
        url: A file that must be reachable for a download.
        remedy: What to do without a network, for the error.

    Yields:
        Nested dicts and lists of Python values. A class label is a text, or `None` if
        the record has none.

    Raises:
        ValueError: if there is no such split, or a field is of another kind.
        ConnectionError: if the dataset is not there and `url` cannot be reached.
    """
    import tensorflow_datasets as tfds

    if not builder.is_prepared():
        try:
            _check_reachable(url)
        except OSError as error:
            raise ConnectionError(
                f"The dataset {builder.name!r} is not in {builder.data_dir} and "
                f"cannot be downloaded from {url} ({error}). {remedy}"
            ) from None
        builder.download_and_prepare()
    try:
        rows = builder.as_dataset(split=split)
    except ValueError as error:
        raise ValueError(
            f"The dataset {builder.name!r} has no split {split!r} ({error}). It has "
            f"{sorted(builder.info.splits)}."
        ) from None
    for row in tfds.as_numpy(rows):
        yield _plain(row, builder.info.features, "")


def _check_reachable(url):
    # The library would try again for minutes.
    request = urllib.request.Request(url, method="HEAD")
    # A host that answers with an error is there.
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER).close()


def _plain(value, feature, name):
    if isinstance(value, dict):
        # A sequence of dicts is a dict of sequences; `feature` has the same names.
        return {key: _plain(part, feature[key], key) for key, part in value.items()}
    if isinstance(value, np.ndarray) and value.ndim:
        feature = getattr(feature, "feature", feature)
        return [_plain(part, feature, name) for part in value]
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, np.generic | np.ndarray):
        raise ValueError(
            f"The field {name!r} is a {type(value).__name__}. Expected texts, numbers, "
            "and lists and dicts of them. Convert the dataset to JSON lines."
        )
    if value.dtype in (np.float16, np.float32):
        return shortest_float(value)
    value = value.item()
    if not hasattr(feature, "int2str"):
        return value
    # -1 marks a record without a label.
    return None if value < 0 else feature.int2str(value)
