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

from star_keras.tasks.sources import read_problems, tfds_records
from star_keras.tasks.task import Problem, Task

FILES = {"train": "train_rand_split.jsonl", "eval": "dev_rand_split.jsonl"}
URL = "https://s3.amazonaws.com/commensenseqa/"

_CHOICES = "\nAnswer Choices:\n"
_MARK = " (CORRECT)"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
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
        train_path: A JSON-lines file in place of the official one. Its records
            are like the official ones, or have `question`, `choices` (texts)
            and `answer` (a letter).
        eval_path: The same for `"eval"`.

    Raises:
        ConnectionError: by `problems`, if the download fails.
        FileNotFoundError: by `problems`, if a file is missing.
        ValueError: by `problems`, if a line is malformed.

    Reference:
        [CommonsenseQA](https://arxiv.org/abs/1811.00937).
    """

    name = "commonsense_qa"
    stop = ("\n\n", "\nQ:")
    answer_marker = "Therefore, the answer is"

    def __init__(self, data_dir=None, train_path=None, eval_path=None):
        self._data_dir = data_dir
        self._paths = {"train": train_path, "eval": eval_path}

    @functools.cache  # noqa: B019 (lives as long as its run)
    def problems(self, split):
        path = self._paths[split]
        if path is None and self._data_dir is not None:
            path = Path(self._data_dir) / FILES[split]
        if path is not None:
            return read_problems(path, self.make_problem, split)[0]
        problems = []
        for record in tfds_records(_make_builder, split, URL + FILES[split], FILES):
            columns = record["question"]["choices"]
            record["question"]["choices"] = [
                {"label": label, "text": text}
                for label, text in zip(columns["label"], columns["text"], strict=True)
            ]
            problems.append(self.make_problem(record, ""))
        return problems

    @functools.cached_property
    def few_shot_examples(self):
        path = Path(__file__).parent / "few_shot" / "commonsense_qa.jsonl"
        return read_problems(path, self.make_problem, "example")[1]

    def make_problem(self, record, default_id):
        if isinstance(record["question"], dict):  # as in the official files
            stem, choices = record["question"]["stem"], record["question"]["choices"]
            labels = [choice["label"].lower() for choice in choices]
            texts = [choice["text"] for choice in choices]
            answer = record.get("answerKey")
        else:
            stem, texts = record["question"], record.get("choices")
            if not isinstance(texts, list) or not 2 <= len(texts) <= len(_LETTERS):
                raise ValueError(
                    f"expected 2 to {len(_LETTERS)} texts as 'choices'. Received: "
                    f"{texts!r}."
                )
            labels, answer = list(_LETTERS[: len(texts)]), record.get("answer")
        answer = str(answer or "").strip().strip("()").lower()
        if answer not in labels:
            raise ValueError(
                f"expected one of the letters {labels} as the answer. Received: "
                f"{answer!r}."
            )
        lines = [
            f"({label}) {' '.join(str(text).split())}"
            for label, text in zip(labels, texts, strict=True)
        ]
        return Problem(
            id=str(record.get("id", default_id)),
            question=" ".join(stem.split()) + _CHOICES + "\n".join(lines),
            answer=answer,
            problem_class=str(record.get("class", "")),
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
