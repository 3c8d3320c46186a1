"""Your own questions and answers, from a JSON-lines file.

One real line:

    {"question": "Which sea lies between Italy and Croatia?", "answer": "Adriatic"}

Fields `id` and `class` are optional. A line with a `rationale` is a few-shot
example instead of a problem.
"""

import functools

from star_keras.tasks.sources import existing_file, read_problems
from star_keras.tasks.task import Task


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
        self._paths = {
            "train": existing_file(train_path),
            "eval": existing_file(eval_path),
        }

    @functools.cache  # noqa: B019 (lives as long as its run)
    def _read(self, split):
        return read_problems(self._paths[split], self.make_problem, split)

    def problems(self, split):
        return self._read(split)[0]

    @functools.cached_property
    def few_shot_examples(self):
        return self._read("train")[1]
