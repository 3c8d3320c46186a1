"""Records of JSON lines, CSV, Parquet and datasets by name, read alike."""

import codecs
import csv
import dataclasses
import io
import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from star_keras.tasks.record_fields import exact_row
from star_keras.tasks.tfds_records import records_of_name
from star_keras.utils.errors import invalid
from star_keras.utils.files import absolute, read_utf8
from star_keras.utils.json_lines import parse_json_line

_SECONDS_TO_ANSWER = 5
_HUB = "hf://"
# A split may be a part: "train[:100]".
_SPLIT = re.compile(r"(.+?):(\w[\w.-]*(?:\[[^\]]*\])?)")
_FORM = "hf://OWNER/NAME:SPLIT, hf://OWNER/NAME/CONFIGURATION:SPLIT or DIRECTORY:SPLIT"
_TFDS = "tfds://"
_SMALL_INTEGER = re.compile(r"\s*\d{1,2}\s*", re.ASCII)
_TFDS_FORM = "tfds://NAME:SPLIT or tfds://NAME/CONFIGURATION:SPLIT"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A split of a Hugging Face dataset.

    Attributes:
        name: Its name on the hub, or a directory.
        configuration: Its configuration; empty for the only one.
        split: The split, e.g. `"train"` or `"train[:100]"`.
    """

    name: str
    configuration: str = ""
    split: str

    def __str__(self):
        return f"{self.name}, split {self.split}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TfdsDataset:
    """A split of a dataset of TensorFlow Datasets.

    Attributes:
        name: Its name, with `/` and a configuration where it has several.
        split: The split, e.g. `"train"` or `"train[:100]"`.
    """

    name: str
    split: str

    def __str__(self):
        return f"{_TFDS}{self.name}, split {self.split}"


Source = Path | Dataset | TfdsDataset


class IntegerCell(str):
    """A cell of CSV with a small integer: whether a text is meant is not known."""

    __slots__ = ()


# Kinds of files, for errors.
PROBLEM_FILES = (
    'a file of JSON lines like {"question": "...", "answer": "..."}, CSV or Parquet'
)
TEXT_FILES = "a file of text (*.txt), JSON lines, CSV, Parquet or TFRecords"


def existing_source(path, name: str, expected: str = PROBLEM_FILES) -> Source:
    """The file or the dataset of an argument.

    Args:
        path: The path of a file, or `hf://OWNER/NAME:SPLIT`,
            `hf://OWNER/NAME/CONFIGURATION:SPLIT`, `DIRECTORY:SPLIT`,
            `tfds://NAME:SPLIT` or `tfds://NAME/CONFIGURATION:SPLIT`.
        name: The argument, for the error.
        expected: What kind of file it may be, for the error.

    Raises:
        ValueError: if it is none of these.
        FileNotFoundError: if there is no such file or directory.
    """
    text = path if isinstance(path, str) else ""
    found = _SPLIT.fullmatch(text.removeprefix(_HUB).removeprefix(_TFDS))
    place, split = found.groups() if found else (text, "")
    if text.startswith(_HUB):
        parts = place.split("/")
        if not split or len(parts) not in (2, 3) or not all(parts):
            raise invalid(name, _FORM, path, "Write the split behind a colon.")
        return Dataset(
            name="/".join(parts[:2]), configuration="".join(parts[2:]), split=split
        )
    if text.startswith(_TFDS):
        parts = place.split("/")
        if not split or len(parts) not in (1, 2) or not all(parts):
            raise invalid(name, _TFDS_FORM, path, "Write the split behind a colon.")
        return TfdsDataset(name=place, split=split)
    full = Path(absolute(name, path))
    if split and not full.exists():
        directory = Path(absolute(name, place))
        if directory.is_dir():
            return Dataset(name=str(directory), split=split)
    if full.is_dir():
        raise invalid(name, f"a file, or {_FORM}", path, "Add a split, or correct it.")
    return existing_file(path, name, expected)


def existing_file(path, name: str, expected: str = PROBLEM_FILES) -> Path:
    """The absolute path, if there is a file.

    Args:
        path: The path. A leading `~` is the user's home.
        name: Name of the argument that it comes from, for the error.
        expected: What kind of file it may be, for the error.

    Raises:
        ValueError: if it is no path.
        FileNotFoundError: if there is no such file.
    """
    full = Path(absolute(name, path))
    if not full.is_file():
        raise FileNotFoundError(
            f"Invalid value for argument `{name}`. Expected {expected}. "
            f"Received: {name}={str(path)!r}. There is no file {full}: correct the "
            "path."
        )
    return full


def read_records(source: Source) -> Iterator[tuple[str, int, dict]]:
    """The records of a file or a dataset.

    Args:
        source: See `existing_source`. Files that end in `.csv`, `.tsv` and `.parquet`
            have these formats; all others are JSON lines. The first row of a CSV file
            has the names; a cell is a text, an `IntegerCell`, or a JSON list or object.

    Yields:
        The place, e.g. `"line 3"`; its number; and the record.

    Raises:
        ValueError: if a line is malformed; names the file and the line.
        ConnectionError: if a dataset is not there and cannot be downloaded.
        ImportError: if a library is missing; says what to install.
    """
    if isinstance(source, Dataset):
        return _numbered(_hugging_face_rows(source))
    if isinstance(source, TfdsDataset):
        return _numbered(records_of_name(source.name, source.split))
    suffix = source.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _csv_records(source, "," if suffix == ".csv" else "\t")
    return _parquet_records(source) if suffix == ".parquet" else _json_records(source)


def _json_records(path):
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.removeprefix(codecs.BOM_UTF8).strip():
                record = parse_json_line(line, set(), path, number)
                yield f"line {number}", number, record


def _csv_records(path, delimiter):
    text = read_utf8(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names, number = None, 0
    try:
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if names is None:
                names = [cell.strip() for cell in row]
                if len(set(names)) < len(names):
                    raise ValueError(f"{place}: a name comes twice in {names}.")
                continue
            if len(row) != len(names):
                raise ValueError(
                    f"{place}: {len(row)} cells. Expected {len(names)}, one for each "
                    f"of {names}. Received: {row!r:.200}. Put cells with a "
                    "delimiter or a line break into double quotes."
                )
            number += 1
            cells = {
                name: _cell(cell, place) for name, cell in zip(names, row, strict=True)
            }
            yield f"line {reader.line_num}", reader.line_num, cells
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: not valid CSV ({error}). Correct "
            "the line."
        ) from None


def _cell(text, place):
    if _SMALL_INTEGER.fullmatch(text):
        return IntegerCell(text)
    if not text.startswith(("[", "{")):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, list | dict) else text


def _parquet_records(path):
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise _missing("pyarrow", error) from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", number, exact_row(record, batch.schema)
    except (ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: not a valid Parquet file ({error}). Write it again."
        ) from None


def _numbered(rows):
    for number, record in enumerate(rows, start=1):
        yield f"row {number}", number, record


def _hugging_face_rows(source):
    try:
        import datasets
    except ImportError as error:
        raise _missing("datasets", error) from None
    directory = Path(source.name)
    if directory.is_absolute():
        saved = directory / source.split
        if (directory / "dataset_dict.json").is_file() and saved.is_dir():
            yield from _exact_rows(datasets.load_from_disk(str(saved)))
            return
    else:
        _check_hub(source)
    yield from _exact_rows(_loaded(datasets, source))


def _exact_rows(dataset):
    schema = dataset.data.schema
    return (exact_row(row, schema) for row in dataset)


def _loaded(datasets, source):
    try:
        return datasets.load_dataset(
            source.name, source.configuration or None, split=source.split
        )
    except (ValueError, OSError) as error:  # its errors are of these kinds
        raise ValueError(
            f"{source}: the dataset cannot be loaded ({error}). Correct its name, "
            "configuration or split."
        ) from None


def _check_hub(source):
    # The library would try again for minutes.
    if os.environ.get("HF_HUB_OFFLINE") or os.environ.get("HF_DATASETS_OFFLINE"):
        return
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER).close()
    except OSError as error:
        raise ConnectionError(
            f"{source}: {url} cannot be reached ({error}). Set HF_HUB_OFFLINE=1 for a "
            "dataset that was downloaded before, or pass a file or DIRECTORY:SPLIT."
        ) from None


def _missing(library, error):
    return ImportError(
        f"{error}. Files of this kind need {library}: "
        "pip install 'star-keras[datasets]'."
    )
