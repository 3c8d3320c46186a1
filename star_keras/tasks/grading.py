"""The verdict on a completion: its answer is read and compared."""

import re
from typing import Literal, NamedTuple

import numpy as np

from star_keras.tasks.task import Problem, Task
from star_keras.tasks.task_calls import call_task
from star_keras.utils.errors import invalid
from star_keras.utils.records import is_text

Verdict = Literal["correct", "incorrect", "unparsed", "invalid_working", "unknown"]

_THOUGHT = re.compile(r"</?think>")
_LIST_MARK = re.compile(r"\A(?:[-*•]|\d+[.)])\s+")
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")
_STEP = re.compile(r"=|[\d)]\s*[-+*/×÷]\s*[$(\d]|\s[+*×÷]\s")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class Grade(NamedTuple):
    """The verdict on a completion.

    Attributes:
        answer: The answer read from the completion, or `None`.
        verdict: `"correct"`, `"incorrect"`, `"unparsed"` without a readable answer,
            `"invalid_working"` for a right answer after wrong steps, or `"unknown"` for
            a readable answer to a problem without one.
        reason: Explanation of the verdict; empty for `"correct"`.
    """

    answer: str | None
    verdict: Verdict
    reason: str = ""


def grade(
    task: Task,
    problem: Problem,
    completion: str,
    *,
    check_working: bool = False,
    opened: bool = False,
) -> Grade:
    """Judge one completion.

    Args:
        task: Reads and compares answers.
        problem: The problem.
        completion: The completion of its prompt.
        check_working: Whether the steps must be right too, see
            `Task.working_fault`.
        opened: See `answer_part`.

    Raises:
        ValueError: see `fault_of`; if `Task.extract_answer` returns neither a text nor
            `None`, or `Task.working_fault` no text.
    """
    part = answer_part(completion, opened)
    if part is None:
        return Grade(None, "unparsed", "the thoughts have no end")
    answer = call_task(task, "extract_answer", problem.id, part)
    if answer is None:
        _, found, rest = part.rpartition(task.answer_marker)
        place = f"in {rest[:80]!r}" if found else f"without {task.answer_marker!r}"
        return Grade(None, "unparsed", f"no answer can be read {place}")
    if problem.answer is None:
        return Grade(answer, "unknown", "the problem has no answer")
    fault = fault_of(task, answer, problem)
    if fault:
        return Grade(answer, "incorrect", fault)
    if check_working:
        fault = call_task(task, "working_fault", problem.id, completion, problem)
        if fault:
            return Grade(answer, "invalid_working", fault)
    return Grade(answer, "correct")


def fault_of(task: Task, answer: str, problem: Problem) -> str:
    """What is wrong with an answer; empty if it is right.

    Args:
        task: The task. Its `checker`, or else its `is_correct`, compares.
        answer: The answer from `extract_answer`.
        problem: The problem.

    Raises:
        ValueError: if the checker returns neither a `bool` nor a text, or
            `Task.is_correct` no `bool`.
    """
    if task.checker is None:
        result = call_task(task, "is_correct", problem.id, answer, problem)
    else:
        try:
            result = task.checker(answer, problem)
        except Exception as error:
            error.add_note(f"The checker was called with {answer!r} and {problem}.")
            raise
    if isinstance(result, bool | np.bool_):
        return "" if result else f"{answer!r:.80} is not {problem.answer!r:.80}"
    if not is_text(result) or not result.strip():
        rule = "a callable that returns `True`, `False` or a text"
        remedy = (
            f"It was called with {answer!r} and {problem}, and returned {result!r}."
        )
        raise invalid("checker", rule, task.checker, remedy)
    return result


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

    True if the first sentence of the completion has the answer and no calculation. An
    answer from `Task.extract_answer_flexible` does not count if the question has the
    same number.

    Args:
        task: Reads and compares answers.
        problem: The problem.
        completion: The completion of its prompt.

    Raises:
        ValueError: see `grade`.
        RuntimeError: if math-verify, which some tasks need, does not start.
    """
    text = _LIST_MARK.sub("", _THOUGHT.sub("\n", completion).strip())
    first = _SENTENCE_END.split(text, maxsplit=1)[0]
    if _STEP.search(first.replace(problem.answer, "")):
        return False
    answer = call_task(task, "extract_answer", problem.id, first)
    if answer is None and problem.answer not in _NUMBER.findall(problem.question):
        answer = call_task(task, "extract_answer_flexible", problem.id, first)
    return answer is not None and not fault_of(task, answer, problem)
