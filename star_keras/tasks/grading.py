"""The verdict on a completion: its answer is read and compared."""

import re
from typing import Literal

import numpy as np

from star_keras.tasks.task import Problem, Task
from star_keras.utils.errors import invalid

Verdict = Literal["correct", "incorrect", "unparsed", "invalid_working"]

_THOUGHT = re.compile(r"</?think>")
_LIST_MARK = re.compile(r"\A(?:[-*•]|\d+[.)])\s+")
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")
_STEP = re.compile(r"=|[\d)]\s*[-+*/×÷]\s*[$(\d]|\s[+*×÷]\s")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def grade(
    task: Task,
    problem: Problem,
    completion: str,
    *,
    check_working: bool = False,
    opened: bool = False,
) -> tuple[str | None, Verdict]:
    """Judge one completion.

    Args:
        task: Reads and compares answers.
        problem: The problem.
        completion: The completion of its prompt.
        check_working: Whether the steps must be right too, see
            `Task.working_is_valid`.
        opened: See `answer_part`.

    Returns:
        The answer or `None`, and the verdict: `"correct"`, `"incorrect"`,
        `"unparsed"` without a readable answer, or `"invalid_working"` for a
        right answer after wrong steps.

    Raises:
        ValueError: if `Task.is_correct` returns no boolean.
    """
    part = answer_part(completion, opened)
    answer = None if part is None else task.extract_answer(part)
    if answer is None:
        return None, "unparsed"
    is_correct = task.is_correct(answer, problem)
    if not isinstance(is_correct, bool | np.bool_):
        rule = f"`True` or `False` from `is_correct` of the task {task.name!r}"
        raise invalid("is_correct", rule, is_correct, "Let it return one of them.")
    if not is_correct:
        return answer, "incorrect"
    if check_working and not task.working_is_valid(completion, problem):
        return answer, "invalid_working"
    return answer, "correct"


def answer_part(completion: str, opened: bool = False) -> str | None:
    """The part of a completion that answers: what follows `<think>...</think>`.

    Args:
        completion: The completion.
        opened: Whether the prompt ends in `<think>`.

    Returns:
        The whole completion if it has no thoughts, `None` if they have no end.
    """
    _, closed, rest = completion.rpartition("</think>")
    is_open = "<think>" in rest or (opened and not closed)
    return None if is_open else rest


def answers_at_once(task: Task, problem: Problem, completion: str) -> bool:
    """Whether a completion gives the right answer before any step.

    Looks at its first sentence: the answer stands there, and no calculation. A generous
    reading (`Task.extract_answer_flexible`) does not count where the question has
    the same number.

    Args:
        task: Reads and compares answers.
        problem: The problem.
        completion: The completion of its prompt.

    Raises:
        RuntimeError: if math-verify, which some tasks need, does not start.
    """
    text = _LIST_MARK.sub("", _THOUGHT.sub("\n", completion).strip())
    first = _SENTENCE_END.split(text, maxsplit=1)[0]
    if _STEP.search(first.replace(problem.answer, "")):
        return False
    answer = task.extract_answer(first)
    if answer is None and problem.answer not in _NUMBER.findall(problem.question):
        answer = task.extract_answer_flexible(first)
    return answer is not None and task.is_correct(answer, problem)
