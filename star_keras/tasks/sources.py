"""Problems of files and datasets."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from star_keras.tasks.record_fields import missing_text, optional_text
from star_keras.tasks.record_sources import (
    Source,
    existing_source,
    read_records,
)
from star_keras.tasks.task import FewShotExample, Problem, Task
from star_keras.utils.errors import invalid
from star_keras.utils.files import absolute


def existing_sources(
    data_dir, train_path, eval_path
) -> tuple[Path | None, dict[str, Source | None]]:
    """The absolute paths of a task's arguments, `None` for those that are `None`.

    Args:
        data_dir: A directory.
        train_path: A file or a dataset, see `existing_source`.
        eval_path: The same.

    Returns:
        The directory, and the sources by `"train"` and `"eval"`.

    Raises:
        ValueError: if one is no path.
        FileNotFoundError: if a file or the directory does not exist.
    """
    if data_dir is not None:
        full = Path(absolute("data_dir", data_dir))
        if not full.is_dir():
            raise FileNotFoundError(
                "Invalid value for argument `data_dir`. Expected a directory. "
                f"Received: data_dir={str(data_dir)!r}. There is no directory {full}: "
                "correct the path."
            )
        data_dir = full
    paths = {"train": train_path, "eval": eval_path}
    return data_dir, {
        split: None if path is None else existing_source(path, f"{split}_path")
        for split, path in paths.items()
    }


def files_remedy(files: Mapping[str, str]) -> str:
    """What to do where a download is impossible.

    Args:
        files: Official files by split.
    """
    names = " and ".join(files.values())
    return f"Put the official files {names} into a directory, pass it as `data_dir`."


def read_problems(
    source: Source, make_problem: Callable[[dict, str], Problem], prefix: str
) -> list[Problem]:
    """Read problems.

    Args:
        source: A file or a dataset, see `read_records`.
        make_problem: Makes a problem of a line's JSON object and a default id,
            see `Task.make_problem`.
        prefix: Beginning of default ids, before the number of the line.

    Raises:
        ValueError: if there is no line, a line is malformed or has a `rationale`,
            or an id comes twice; names the file and the line.
    """
    problems = []
    for place, problem, rationale in _read(source, make_problem, prefix):
        if rationale is not None:
            raise ValueError(
                f"{source}, {place}: a line with a `rationale` is a worked "
                f"example. Expected problems alone. Received: rationale={rationale!r}. "
                "Leave the field out, or put the line into a file for `prompts_file`."
            )
        problems.append(problem)
    return problems


def read_examples(
    source: Source,
    make_problem: Callable[[dict, str], Problem],
    records: Iterable[tuple[str, int, dict]] | None = None,
) -> list[FewShotExample]:
    """Read worked examples, each with a `rationale`.

    Args:
        source: A file or a dataset, see `read_records`.
        make_problem: See `read_problems`.
        records: Selection of records of the source, see `read_records`. Defaults to
            all records.

    Raises:
        ValueError: if there is no line, a line is malformed or has no `rationale`,
            or an id comes twice; names the file and the line.
    """
    examples = []
    for place, problem, rationale in _read(source, make_problem, "example", records):
        if rationale is None:
            raise ValueError(
                f"{source}, {place}: expected a worked example. Received no "
                "`rationale`. Add one, or leave the line out."
            )
        examples.append(FewShotExample(problem=problem, rationale=rationale))
    return examples


def own_examples(task: Task) -> list[FewShotExample]:
    """The worked examples that come with a task, `few_shot/<name>.jsonl`.

    Args:
        task: The task.
    """
    path = Path(__file__).parent / "few_shot" / f"{task.name}.jsonl"
    return read_examples(path, task.make_problem)


def read_problems_and_examples(
    source: Source, make_problem: Callable[[dict, str], Problem], prefix: str
) -> tuple[list[Problem], list[FewShotExample]]:
    """Read problems and, with a `rationale`, worked examples.

    Args:
        source: A file or a dataset, see `read_records`.
        make_problem: See `read_problems`.
        prefix: See `read_problems`.

    Raises:
        ValueError: if there is no problem, a line is malformed, or an id comes
            twice; names the file and the line.
    """
    problems, examples = [], []
    for _, problem, rationale in _read(source, make_problem, prefix):
        if rationale is None:
            problems.append(problem)
        else:
            examples.append(FewShotExample(problem=problem, rationale=rationale))
    if not problems:
        raise ValueError(
            f"{source}: expected problems. Received {len(examples)} lines, all of them "
            "worked examples, for they have a `rationale`. Leave that field out of the "
            "lines to train on."
        )
    return problems, examples


def _read(source, make_problem, prefix, records=None):
    """Yields the place, the problem and the rationale or `None` of each record."""
    places: dict[str, str] = {}
    for place, number, record in records or read_records(source):
        try:
            problem = make_problem(record, f"{prefix}-{number}")
            rationale = record.get("rationale")
            if rationale is not None and not isinstance(rationale, str):
                remedy = "Leave it out for a problem without one."
                raise invalid("rationale", "a text", rationale, remedy)
            is_example = rationale is not None and bool(rationale.strip())
            if is_example and problem.answer is None:
                raise missing_text(record, "answer")
        except ValueError as error:
            raise ValueError(f"{source}, {place}: {error}") from None
        if problem.id in places:
            what = f"the id {problem.id!r}"
            if optional_text(record, "id") is None:
                what = f"the question {problem.question!r:.200}"
            raise ValueError(
                f"{source}, {place}: {what} comes twice, first in "
                f"{places[problem.id]}. Expected each once. Remove one of the lines"
                + ("." if what.startswith("the q") else ", or change its id.")
            )
        places[problem.id] = place
        yield place, problem, rationale if is_example else None
    if not places:
        raise ValueError(
            f"{source}: there is no record. Expected JSON lines like "
            '{"question": "...", "answer": "..."}, or rows below the names of the '
            "columns. Write some into it."
        )
