"""Your own questions and answers, from a JSON-lines file.

One real line:

    {"question": "Which sea lies between Italy and Croatia?", "answer": "Adriatic"}

Fields `id` and `class` are optional. A line with a `rationale` is a few-shot
example instead of a problem.
"""

import functools
from pathlib import Path

from star_keras.json_lines import parse_json_line
from star_keras.tasks.task import FewShotExample, Problem, Task


class JsonLines(Task):
    """Problems from `train_path` and `eval_path`, JSON-lines files.

    Args:
        train_path: Problems to train on. Its lines with a `rationale` make
            the few-shot prompt.
        eval_path: Held-out problems.

    Raises:
        ValueError: when problems are asked for and a line is not a JSON
            object with `question` and `answer`, an answer is empty, or an id
            comes twice; names the file and the line.
        FileNotFoundError: if a file is missing.
    """

    name = "jsonl"

    def __init__(self, train_path, eval_path):
        self._paths = {"train": Path(train_path), "eval": Path(eval_path)}
        for path in self._paths.values():
            if not path.is_file():
                raise FileNotFoundError(
                    f"There is no file {path}. Expected JSON lines like "
                    '{"question": "...", "answer": "..."}.'
                )

    @functools.cache  # noqa: B019 (lives as long as its run)
    def _read(self, split):
        path = self._paths[split]
        problems, examples, ids = [], [], set()
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                record = parse_json_line(line, {"question", "answer"}, path, number)
                for name in ("question", "answer"):
                    if not isinstance(record[name], str | int | float):
                        raise ValueError(
                            f"{path}, line {number}: expected a text or a number as "
                            f"{name!r}. Received: {record[name]!r}."
                        )
                problem = Problem(
                    id=str(record.get("id", f"{split}-{number}")),
                    question=str(record["question"]),
                    answer=str(record["answer"]).strip(),
                    problem_class=str(record.get("class", "")),
                )
                if not problem.answer:
                    raise ValueError(
                        f"{path}, line {number}: the answer is empty. "
                        "Give it one, or leave the line out."
                    )
                if problem.id in ids:
                    raise ValueError(
                        f"{path}, line {number}: the id {problem.id!r} comes twice. "
                        "Ids must be unique in a file."
                    )
                ids.add(problem.id)
                if split == "train" and "rationale" in record:
                    examples.append(
                        FewShotExample(problem=problem, rationale=record["rationale"])
                    )
                else:
                    problems.append(problem)
        return problems, examples

    def problems(self, split):
        return self._read(split)[0]

    @property
    def few_shot_examples(self):
        return self._read("train")[1]
