"""The interface of a task: problems, and the making and reading of their text."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A question with its answer.

    Attributes:
        id: Unique within the task; names the problem in files and errors.
        question: The question alone, without any prompt around it.
        answer: The correct final answer as `Task.extract_answer` returns it.
        problem_class: Accuracy is also reported for each class, e.g. the
            number of digits. Empty for none.
    """

    id: str
    question: str
    answer: str
    problem_class: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShotExample:
    """A problem worked out by hand, for the prompt."""

    problem: Problem
    rationale: str


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
    """

    name: str
    stop: Sequence[str] = ("\n\n", "\nQ:")
    few_shot_examples: Sequence[FewShotExample] = ()
    splits: Sequence[str] = ("train", "eval")
    answer_marker: str = "The answer is"

    def problems(self, split: str) -> Sequence[Problem]:
        """The problems of a split, the same at every call."""
        raise NotImplementedError

    def format_question(self, problem: Problem, hint: bool = False) -> str:
        """The text before a completion; with `hint` it shows the answer."""
        if hint:
            return f"Q: {problem.question} ({problem.answer})\nA:"
        return f"Q: {problem.question}\nA:"

    def format_response(self, rationale: str, problem: Problem) -> str:
        """The completion of a rationale, `""` for none, and the answer."""
        rationale = f" {rationale}" if rationale else ""
        return f"{rationale} {self.answer_marker} {problem.answer}."

    def extract_answer(self, completion: str) -> str | None:
        """The final answer in a completion, `None` if it cannot be read."""
        _, found, answer = completion.rpartition(self.answer_marker)
        answer = answer.strip().removesuffix(".").strip()
        return answer if found and answer else None

    def extract_answer_flexible(self, completion: str) -> str | None:
        """A more generous reading, reported beside the strict one."""
        return self.extract_answer(completion)

    def is_correct(self, answer: str, problem: Problem) -> bool:
        """Whether an extracted answer is the problem's."""
        return answer == problem.answer

    def working_is_valid(self, completion: str, problem: Problem) -> bool:
        """Whether the steps of a completion are right, not only its answer.

        Used with `check_working` alone. Defaults to yes.
        """
        return True

    def rationale_key(self, completion: str) -> str:
        """A key that is the same for equal rationales of a problem."""
        return " ".join(completion.split())

    def make_problem(self, record: dict, default_id: str) -> Problem:
        """The problem of a line of a JSON-lines file.

        Args:
            record: Has `question` and `answer`, and optionally `id` and `class`.
            default_id: Its id if it has none.

        Raises:
            ValueError: if it is malformed; the caller adds file and line.
        """
        for name in ("question", "answer"):
            if name not in record:
                raise ValueError(f"missing {name!r}. Received: {sorted(record)}.")
            if not isinstance(record[name], str | int | float):
                raise ValueError(
                    f"expected a text or a number as {name!r}. Received: "
                    f"{record[name]!r}."
                )
        answer = str(record["answer"]).strip()
        if not answer:
            raise ValueError("the answer is empty. Give it one, or leave the line out.")
        return Problem(
            id=str(record.get("id", default_id)),
            question=str(record["question"]),
            answer=answer,
            problem_class=str(record.get("class", "")),
        )
