"""Grade-school math word problems (GSM8K).

One of its problems as the model sees it, with its official solution:

    Q: Natalia sold clips to 48 of her friends in April, and then she sold half as
    many clips in May. How many clips did Natalia sell altogether in April and May?
    A: Natalia sold 48/2 = <<48/2=24>>24 clips in May.
    Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.
    #### 72

`<<48/2=24>>` is a calculator annotation. A hint is the final answer, never
the solution.
"""

import dataclasses
import functools
import hashlib

from star_keras.tasks.equations import ANNOTATION, equation_holds
from star_keras.tasks.read_number import last_number, read_number
from star_keras.tasks.record_fields import required_text
from star_keras.tasks.record_sources import existing_file
from star_keras.tasks.sources import (
    existing_sources,
    files_remedy,
    own_examples,
    read_problems,
)
from star_keras.tasks.task import Task
from star_keras.tasks.tfds_records import tfds_records
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

_FILES = {"train": "train.jsonl", "test": "test.jsonl"}
_URL = (
    "https://raw.githubusercontent.com/openai/grade-school-math/master/"
    "grade_school_math/data/train.jsonl"
)


class GSM8K(Task):
    """GSM8K, 7,473 training and 1,319 test problems.

    The split `"test"` is the official test set, for the final model. The split
    `"eval"` is held out of the official training set. An id is a digest of the
    question and decides the order, so all sources have the same problems.

    Args:
        data_dir: Directory with the official `train.jsonl` and `test.jsonl`.
            By default TensorFlow Datasets downloads them.
        train_path: A file or a dataset in place of the official one, see
            `record_sources`, with `question` and `answer` (a number, or a solution
            that ends in `#### number`).
        eval_path: The same for `"eval"`; then no training problem is held out.
        validation_problems: Number of training problems held out.

    Raises:
        ValueError: if `validation_problems` is negative or no integer, or a path is
            invalid; by `problems`, if there is no such split, a line is malformed or a
            question comes twice.
        ConnectionError: by `problems`, if the download fails.
        FileNotFoundError: if a file or directory is missing; by `problems`, if an
            official file is.
        RuntimeError: by the methods that read answers, if math-verify does not start.

    Reference:
        [Training Verifiers to Solve Math Word Problems](https://arxiv.org/abs/2110.14168).
    """

    name = "gsm8k"
    stop = ("\nQ:",)
    answer_marker = "####"
    splits = ("train", "eval", "test")

    def __init__(
        self, data_dir=None, train_path=None, eval_path=None, validation_problems=500
    ):
        self._data_dir, self._paths = existing_sources(data_dir, train_path, eval_path)
        self.validation_problems = checked(
            "validation_problems", int, validation_problems, at_least=0
        )

    def problems(self, split):
        return self._problems(split, needs_answers=True)

    def questions(self, split):
        return self._problems(split, needs_answers=split != "train")

    def _problems(self, split, needs_answers):
        self.check_split(split)
        if split == "test" or (split == "eval" and self._paths["eval"]):
            return self._read(split, needs_answers)
        # The problems held out of the training file need answers, the others may not.
        train = self._read("train", needs_answers and split == "train")
        if self._paths["eval"]:
            return train
        if "answer" in self.field_names and all(p.answer is None for p in train):
            self._read("train", True)  # an error that names the columns
        held_out = self.validation_problems
        if split == "train" and held_out >= len(train):
            raise ValueError(
                "Invalid value for argument `validation_problems`. Expected fewer "
                f"than the {len(train)} training problems. Received: "
                f"validation_problems={held_out}."
            )
        return train[:held_out] if split == "eval" else train[held_out:]

    @functools.cache  # noqa: B019 (lives as long as its run)
    def _read(self, split, needs_answers):
        path = self._paths.get(split)
        if path is None and self._data_dir is not None:
            path = existing_file(self._data_dir / _FILES[split], "data_dir")
        if path is not None:
            make = functools.partial(self.problem_of, needs_answer=needs_answers)
            problems = read_problems(path, make, split)
        else:
            import tensorflow_datasets as tfds  # takes seconds

            remedy = files_remedy(_FILES)
            records = tfds_records(tfds.builder("gsm8k"), split, _URL, remedy)
            problems = [self.make_problem(record, "") for record in records]
        return sorted(problems, key=lambda problem: problem.id)

    @functools.cached_property
    def few_shot_examples(self):
        return own_examples(self)

    def make_problem(self, record, default_id):
        question = " ".join(required_text(record, "question").split())
        digest = hashlib.sha256(question.encode()).hexdigest()[:16]
        problem = super().make_problem(record, digest)
        problem = dataclasses.replace(problem, question=question)
        if problem.answer is None:
            return problem
        answer = read_number(problem.answer.rpartition("####")[2])
        if answer is None:
            raise invalid(
                "answer",
                "a number, or a solution that ends in '#### number'",
                problem.answer,
                "Correct it, or leave the line out.",
            )
        return dataclasses.replace(problem, answer=answer)

    def format_response(self, rationale, problem):
        steps = f" {rationale}\n" if rationale else " "
        return f"{steps}{self.answer_marker} {problem.answer}"

    def extract_answer(self, completion):
        """The number behind the last `####`, see `read_number`."""
        _, found, rest = completion.rpartition(self.answer_marker)
        number = rest.strip().partition("\n")[0].partition("#")[0]
        return read_number(number) if found else None

    def extract_answer_flexible(self, completion):
        """The strict reading, or else the last number, see `last_number`."""
        answer = self.extract_answer(completion)
        return answer or last_number(ANNOTATION.sub("", completion))

    def working_fault(self, completion, problem):
        """The first calculator annotation that is not true."""
        annotations = ANNOTATION.findall(completion)
        false = next((a for a in annotations if not equation_holds(a)), None)
        return "" if false is None else f"<<{false:.80}>> is not true"

    def rationale_key(self, completion):
        """The list of its equations, or the text where it has none.

        Reference:
            [Scaling Relationship on Learning Mathematical Reasoning](https://arxiv.org/abs/2308.01825),
            section 3.3, which tells rationales apart by their equations.
        """
        equations = [e.replace(" ", "") for e in ANNOTATION.findall(completion)]
        return "\n".join(equations) or super().rationale_key(completion)
