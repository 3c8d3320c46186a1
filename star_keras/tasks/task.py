"""The interface of a task: problems, and the making and reading of their text."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from star_keras.tasks.record_fields import (
    missing_text,
    optional_text,
    required_text,
)
from star_keras.utils.errors import invalid
from star_keras.utils.records import is_text

# Between the worked examples and the question of a plain prompt.
EXAMPLE_SEPARATOR = "\n\n"
_PLACEHOLDER = re.compile(r"\{(question|answer)\}")
_COLON = re.compile(r"\A:(?:\s+|\Z)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A question with its answer, if it is known.

    Attributes:
        id: Unique within the task; names the problem in files and errors.
        question: The question alone, without any prompt around it.
        answer: The correct final answer as `Task.extract_answer` returns it; `None`
            for a training problem whose samples vote (`answers="majority"`).
        problem_class: Accuracy is also reported for each class, e.g. the
            number of digits. Empty for none.

    Raises:
        ValueError: if an attribute is no text, holds half a character (a lone
            surrogate), or is blank; the class alone may be empty.
    """

    id: str
    question: str
    answer: str | None
    problem_class: str = ""

    def __post_init__(self):
        _check_text("id", self.id, self.id)
        _check_text("question", self.question, self.id)
        if self.answer is not None:
            _check_text("answer", self.answer, self.id)
        if self.problem_class:
            _check_text("problem_class", self.problem_class, self.id)
        elif self.problem_class != "":
            raise invalid("problem_class", 'a text, `""` for none', self.problem_class)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShotExample:
    """A problem worked out by hand, for the prompt.

    Raises:
        ValueError: if the problem has no answer, or the rationale is blank, no text, or
            holds half a character.
    """

    problem: Problem
    rationale: str

    def __post_init__(self):
        if not isinstance(self.problem, Problem):
            raise invalid("problem", "a `Problem`", self.problem)
        if self.problem.answer is None:
            rule = f"a text in the worked example {self.problem.id!r}"
            raise invalid("answer", rule, None, "Add it, or leave the example out.")
        _check_text("rationale", self.rationale, self.problem.id)


def _check_text(name, value, problem_id):
    remedy = f"Correct the problem {problem_id!r}, or leave it out."
    if not isinstance(value, str) or not value.strip():
        raise invalid(name, "a text that is not blank", value, remedy)
    if not is_text(value):
        rule = "Unicode text without lone surrogates, which are halves of characters"
        raise invalid(name, rule, value, remedy)


class Task:
    """Base class of the tasks; `problems` is all that a subclass must define.

    The defaults suit a task of short questions and answers:

    ```
    Q: What is the capital of France?
    A: Its seat of government is Paris. The answer is Paris.
    ```

    Example: a whole task.

    ```python
    class Capitals(Task):
        name = "capitals"

        def problems(self, split):
            pairs = {"train": [("France", "Paris")], "eval": [("Peru", "Lima")]}
            return [
                Problem(
                    id=country,
                    question=f"What is the capital of {country}?",
                    answer=city,
                )
                for country, city in pairs[split]
            ]
    ```

    Attributes:
        name: Name of the task in files and messages.
        stop: Strings that end a completion. They are not part of it.
        few_shot_examples: The worked examples of the few-shot prompt.
        splits: Names that `problems` takes.
        answer_marker: What stands before the answer of a response.
        question_format: The text before a completion, with `{question}`.
        hint_format: The text before a completion with a hint, with `{question}` and
            `{answer}`.
        marks_hints: Whether the question shows a hint without `{answer}`.
        format_fields: Parts of the format that a prompts file may replace.
        field_names: Columns of files and datasets that stand for `question`, `answer`,
            `choices` and `class`, by these names. Defaults to the names themselves.
        checker: Compares answers in place of `is_correct`, see
            `star_keras.tasks.checkers`.
    """

    name: str
    stop: Sequence[str] = ("\n\n", "\nQ:")
    few_shot_examples: Sequence[FewShotExample] = ()
    splits: Sequence[str] = ("train", "eval")
    answer_marker: str = "The answer is"
    question_format: str = "Q: {question}\nA:"
    hint_format: str = "Q: {question} ({answer})\nA:"
    marks_hints: bool = False
    format_fields: Sequence[str] = ("question", "hint", "answer_marker", "stop")
    field_names: Mapping[str, str] = MappingProxyType({})
    checker: Callable[[str, "Problem"], bool | str] | None = None

    @property
    def system_text(self) -> str:
        """What a chat without worked examples begins with: the form of a response."""
        return f'Reason step by step. End with "{self.answer_marker}" and the answer.'

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split, the same at every call."""
        raise NotImplementedError

    def questions(self, split: str) -> Sequence[Problem]:
        """The problems of a split, also those of a file that have no answer.

        Defaults to `problems`. A task that changes the problems of another one
        overrides both.
        """
        return self.problems(split)

    def check_split(self, split: str):
        """Check the argument of `problems`.

        Raises:
            ValueError: if it is none of `splits`.
        """
        if split not in self.splits:
            raise invalid("split", f"one of {list(self.splits)}", split)

    def format_question(self, problem: Problem, hint: bool = False) -> str:
        """The text before a completion; with `hint` it shows the answer."""
        text = self.hint_format if hint else self.question_format
        values = {
            "question": self.question_text(problem, hint),
            "answer": problem.answer,
        }
        return _PLACEHOLDER.sub(lambda found: values[found[1]], text)

    def question_text(self, problem: Problem, hint: bool = False) -> str:
        """The text for `{question}` in a format."""
        return problem.question

    def format_response(self, rationale: str, problem: Problem) -> str:
        """The completion of a rationale, `""` for none, and the answer."""
        rationale = f" {rationale}" if rationale else ""
        return f"{rationale} {self.answer_marker} {problem.answer}."

    def extract_answer(self, completion: str) -> str | None:
        """The final answer in a completion, `None` if it cannot be read.

        It is the text behind the last marker, without a colon before it and a full stop
        behind it.
        """
        _, found, answer = completion.rpartition(self.answer_marker)
        answer = _COLON.sub("", answer.strip()).removesuffix(".").strip()
        return answer if found and answer else None

    def extract_answer_flexible(self, completion: str) -> str | None:
        """A more generous reading, reported beside the strict one."""
        return self.extract_answer(completion)

    def is_correct(self, answer: str, problem: Problem) -> bool:
        """Whether an extracted answer is the problem's."""
        return answer == problem.answer

    def working_fault(self, completion: str, problem: Problem) -> str:
        """What is wrong with the steps of a completion; empty if they are right.

        Used with `check_working` alone, and only if the answer is right. Without this
        method `check_working` is refused.
        """
        return ""

    def rationale_key(self, completion: str) -> str:
        """A key that is the same for equal rationales of a problem."""
        return " ".join(completion.split())

    def problem_of(
        self, record: dict, default_id: str, needs_answer: bool = True
    ) -> Problem:
        """The problem of a record whose columns have names of `field_names`.

        Args:
            record: The record.
            default_id: See `make_problem`.
            needs_answer: Whether a problem without an answer is an error.

        Raises:
            ValueError: if a column or the answer is missing; see `make_problem`.
        """
        renamed = dict(record)
        is_example = bool(str(record.get("rationale") or "").strip())
        for name, column in self.field_names.items():
            optional = name == "answer" and not needs_answer and not is_example
            if column not in record and optional:
                renamed.pop(name, None)
                continue
            if column not in record:
                rule = f"one of the columns {sorted(record)}"
                raise invalid(f"{name}_field", rule, column, "Correct the name.")
            renamed[name] = record[column]
        problem = self.make_problem(renamed, default_id)
        if needs_answer and problem.answer is None:
            remedy = "With --answers=majority training problems need none."
            raise missing_text(renamed, "answer", remedy)
        return problem

    def make_problem(self, record: dict, default_id: str) -> Problem:
        """The problem of a line of a JSON-lines file.

        Args:
            record: Has `question`, and optionally `answer`, `id` and `class`: texts
                or numbers. `null` and blank mean absent.
            default_id: Its id if it has none.

        Raises:
            ValueError: if it is malformed; the caller adds file and line.
        """
        answer = optional_text(record, "answer")
        return Problem(
            id=optional_text(record, "id") or default_id,
            question=required_text(record, "question"),
            answer=None if answer is None else answer.strip(),
            problem_class=optional_text(record, "class") or "",
        )
