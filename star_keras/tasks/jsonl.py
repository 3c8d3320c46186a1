"""Your own questions and answers, from JSON lines, CSV, Parquet or a dataset.

One real line:

    {"question": "Which sea lies between Italy and Croatia?", "answer": "Adriatic"}

Fields `id` and `class` are optional. A line of the training file with a `rationale`
is a few-shot example instead of a problem. `null` and blank texts mean absent. With
`answers="majority"` training problems need no `answer`.
"""

import functools

from star_keras.tasks.record_sources import existing_source
from star_keras.tasks.sources import (
    own_examples,
    read_problems,
    read_problems_and_examples,
)
from star_keras.tasks.task import Task


class JsonLines(Task):
    """Problems from `train_path` and `eval_path`, see `record_sources`.

    Args:
        train_path: Problems to train on. Its lines with a `rationale` make
            the few-shot prompt.
        eval_path: Held-out problems.

    Attributes:
        has_examples: Whether worked examples come with the task, for a training file
            without any.

    Raises:
        ValueError: if a path is invalid; by `problems`, if there is no such split,
            or a line is malformed, lacks `question` or `answer`, has an id twice,
            or has a `rationale` in the held-out file; names the file and the line.
        FileNotFoundError: if a file is missing.
        ConnectionError: by `problems`, if a dataset cannot be downloaded.
        ImportError: by `problems`, if a library for the source is missing.
    """

    name = "jsonl"
    has_examples = False

    def __init__(self, train_path, eval_path):
        self._train = existing_source(train_path, "train_path")
        self._eval = existing_source(eval_path, "eval_path")

    def problems(self, split):
        problems = self.questions(split)
        if any(problem.answer is None for problem in problems):
            # Read again, for the error that names the line.
            read_problems_and_examples(self._train, self.problem_of, "train")
        return problems

    def questions(self, split):
        self.check_split(split)
        return self._train_lines[0] if split == "train" else self._eval_problems

    @functools.cached_property
    def _train_lines(self):
        make_problem = functools.partial(self.problem_of, needs_answer=False)
        return read_problems_and_examples(self._train, make_problem, "train")

    @functools.cached_property
    def _eval_problems(self):
        return read_problems(self._eval, self.problem_of, "eval")

    @functools.cached_property
    def few_shot_examples(self):
        return self._train_lines[1] or (own_examples(self) if self.has_examples else [])
