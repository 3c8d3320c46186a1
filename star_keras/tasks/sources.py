"""Where problems come from: files of JSON lines, or TensorFlow Datasets."""

import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from star_keras.tasks.task import FewShotExample, Problem
from star_keras.utils.json_lines import parse_json_line

_SECONDS_TO_ANSWER = 5


def existing_file(path) -> Path:
    """The path, if there is a file.

    Raises:
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}. Expected JSON lines like "
            '{"question": "...", "answer": "..."}.'
        )
    return path


def read_problems(
    path, make_problem: Callable[[dict, str], Problem], prefix: str
) -> tuple[list[Problem], list[FewShotExample]]:
    """Read a JSON-lines file of problems.

    Args:
        path: The file.
        make_problem: Makes a problem of a line's JSON object and a default id,
            see `Task.make_problem`.
        prefix: Beginning of default ids, before the number of the line.

    Returns:
        The problems, and the worked examples: lines with a `rationale`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is malformed, or an id comes twice; names the
            file and the line.
    """
    path = existing_file(path)
    problems, examples, ids = [], [], set()
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            record = parse_json_line(line, {"question"}, path, number)
            try:
                problem = make_problem(record, f"{prefix}-{number}")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
            if problem.id in ids:
                raise ValueError(
                    f"{path}, line {number}: the id {problem.id!r} comes twice. "
                    "Ids must be unique in a file."
                )
            ids.add(problem.id)
            if "rationale" in record:
                examples.append(
                    FewShotExample(problem=problem, rationale=record["rationale"])
                )
            else:
                problems.append(problem)
    return problems, examples


def tfds_records(
    make_builder: Callable, split: str, url: str, files: Mapping[str, str]
) -> Iterable[dict]:
    """The records of a split of a TensorFlow dataset, downloaded if needed.

    Args:
        make_builder: Called with the module `tensorflow_datasets`; returns the
            `tfds.core.DatasetBuilder`.
        split: Name of the split there.
        url: The first file of the download.
        files: Official files by split, for the error.

    Yields:
        Nested dicts of Python strings.

    Raises:
        ConnectionError: if the dataset is not there and `url` cannot be
            reached.
    """
    import tensorflow_datasets as tfds  # takes seconds to import

    builder = make_builder(tfds)
    if not builder.is_prepared():
        try:
            _check_reachable(url)
        except OSError as error:
            names = " and ".join(files.values())
            raise ConnectionError(
                f"The dataset {builder.name!r} is not in {builder.data_dir} and "
                f"cannot be downloaded from {url} ({error}). Put the official "
                f"files {names} into a directory and pass it as `data_dir`."
            ) from None
        builder.download_and_prepare()
    for record in tfds.as_numpy(builder.as_dataset(split=split)):
        yield _decoded(record)


def _check_reachable(url):
    # TensorFlow Datasets would try again for minutes.
    request = urllib.request.Request(url, method="HEAD")
    urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER).close()


def _decoded(value):
    if isinstance(value, dict):
        return {name: _decoded(part) for name, part in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    return [_decoded(part) for part in value]
