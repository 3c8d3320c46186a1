"""Common-sense questions with five choices (CommonsenseQA).

One of its problems as the model sees it; a hint marks the right choice:

    Q: What kind of place could have a seafood restaurant?
    Answer Choices:
    (a) new york
    (b) coastal cities
    (c) city (CORRECT)
    (d) coastal cities
    (e) boston
    A:
"""

import functools
import re
from pathlib import Path

from star_keras.tasks.choices import LETTERS, read_choices
from star_keras.tasks.record_fields import optional_text
from star_keras.tasks.record_sources import existing_file
from star_keras.tasks.sources import (
    existing_sources,
    read_examples,
    read_problems,
    tfds_records,
)
from star_keras.tasks.task import Problem, Task
from star_keras.utils.errors import invalid

FILES = {"train": "train_rand_split.jsonl", "eval": "dev_rand_split.jsonl"}
URL = "https://s3.amazonaws.com/commensenseqa/"

_CHOICES = "\nAnswer Choices:\n"
_MARK = " (CORRECT)"
_IN_BRACKETS = re.compile(r"\(\s*([A-Za-z])\s*\)")
_ALONE = re.compile(r"\W*([A-Za-z])\W*", re.ASCII)


class CommonsenseQA(Task):
    """CommonsenseQA, 9,741 training and 1,221 development problems.

    `"eval"` is the official development set, as in the paper: the answers of
    the official test set are not public. An answer is a lower-case letter;
    some problems have the same choice twice.

    Args:
        data_dir: Directory with the official `train_rand_split.jsonl` and
            `dev_rand_split.jsonl`. By default TensorFlow Datasets downloads
            them, see `star_keras.tasks.commonsense_qa_builder`.
        train_path: A file or a dataset in place of the official one, with records
            like those of CommonsenseQA, ARC or MMLU: see
            `star_keras.tasks.choices.read_choices`.
        eval_path: The same for `"eval"`.

    Raises:
        ConnectionError: by `problems`, if the download fails.
        FileNotFoundError: if a file or directory is missing; by `problems`, if an
            official file is.
        ValueError: if a path is invalid, or `data_dir` is given besides both files; by
            `problems`, if there is no such split, or a line is malformed.

    Reference:
        [CommonsenseQA](https://arxiv.org/abs/1811.00937).
    """

    name = "commonsense_qa"
    stop = ("\n\n", "\nQ:")
    answer_marker = "Therefore, the answer is"
    system_text = (
        'Think about the choices. End with "Therefore, the answer is", the choice and '
        "its letter in brackets."
    )

    def __init__(self, data_dir=None, train_path=None, eval_path=None):
        self._data_dir, self._paths = existing_sources(data_dir, train_path, eval_path)
        if data_dir is not None and None not in self._paths.values():
            rule = "`None` with train_path and eval_path, which take its place"
            raise invalid("data_dir", rule, data_dir, "Leave it out.")

    @functools.cache  # noqa: B019 (lives as long as its run)
    def problems(self, split):
        self.check_split(split)
        path = self._paths[split]
        if path is None and self._data_dir is not None:
            path = existing_file(self._data_dir / FILES[split], "data_dir")
        if path is not None:
            return read_problems(path, self.problem_of, split)
        records = tfds_records(_make_builder, split, URL + FILES[split], FILES)
        return [self.make_problem(record, "") for record in records]

    @functools.cached_property
    def few_shot_examples(self):
        path = Path(__file__).parent / "few_shot" / "commonsense_qa.jsonl"
        return read_examples(path, self.make_problem)

    def make_problem(self, record, default_id):
        question, texts, answer = read_choices(record)
        lines = [
            f"({letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False)
        ]
        return Problem(
            id=optional_text(record, "id") or default_id,
            question=question + _CHOICES + "\n".join(lines),
            answer=answer,
            problem_class=optional_text(record, "class") or "",
        )

    def format_question(self, problem, hint=False):
        stem, _, choices = problem.question.rpartition(_CHOICES)
        if hint:
            right = _choice_line(problem)
            choices = "\n".join(
                line + _MARK if line == right else line for line in choices.split("\n")
            )
        return f"Q: {stem}{_CHOICES}{choices}\nA:"

    def format_response(self, rationale, problem):
        if not rationale:
            return f" ({problem.answer})"
        text = _choice_line(problem).partition(") ")[2]
        return f" {rationale} {self.answer_marker} {text} ({problem.answer})."

    def extract_answer(self, completion):
        """The letter in `"... the answer is blotter (b)."`, `"(b)"` or `"B"`.

        Text after the last "answer is" counts, if there is one, and the first
        letter in brackets in it. Otherwise the last letter in brackets counts.
        """
        _, marker, conclusion = completion.rpartition("answer is")
        letters = _IN_BRACKETS.findall(conclusion)
        if letters:
            return letters[0 if marker else -1].lower()
        alone = _ALONE.fullmatch(conclusion)
        return alone[1].lower() if alone else None


def _make_builder(tfds):
    from star_keras.tasks.commonsense_qa_builder import CommonsenseQABuilder

    return CommonsenseQABuilder()


def _choice_line(problem):
    lines = problem.question.rpartition(_CHOICES)[2].split("\n")
    return next(line for line in lines if line.startswith(f"({problem.answer}) "))
