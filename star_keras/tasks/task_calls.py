"""Calls of a task's methods, perhaps the user's own: what they return is checked."""

import numpy as np

from star_keras.tasks.task import Task
from star_keras.utils.errors import invalid
from star_keras.utils.records import is_text


def _is_answer(value):
    return value is None or is_text(value)


_ANSWER = _is_answer, "a text or `None`", "Let it return the text of the answer."
# Of each method: the test of what it returns, its rule, the remedy.
_RULES = {
    "extract_answer": _ANSWER,
    "extract_answer_flexible": _ANSWER,
    "is_correct": (
        lambda value: isinstance(value, bool | np.bool_),
        "`True` or `False`",
        "Let it return one of them.",
    ),
    "working_fault": (is_text, "a text", 'Let it return `""` for none.'),
    "rationale_key": (is_text, "a text", "Let it return one."),
}


def call_task(task: Task, method: str, problem: str, *arguments):
    """What a method of a task returns.

    Args:
        task: The task.
        method: One that reads or compares, such as `"extract_answer"`.
        problem: Id of the problem, for the error.
        *arguments: Its arguments, first the completion or the answer.

    Raises:
        ValueError: if it returns a value of another type; names task, method and
            problem.
        Exception: what it raises itself, with a note of the same.
    """

    def call():
        return f"was called with {arguments[0]!r} for the problem {problem!r}."

    try:
        result = getattr(task, method)(*arguments)
    except Exception as error:
        error.add_note(f"`{method}` of the task {task.name!r} {call()}")
        raise
    fits, rule, remedy = _RULES[method]
    if not fits(result):
        rule = f"{rule} from `{method}` of the task {task.name!r}"
        raise invalid(method, rule, result, f"{remedy} It {call()}")
    return result


def rationale_key(task: Task, problem: str, completion: str) -> str:
    """`Task.rationale_key` of a completion, see `call_task`."""
    return call_task(task, "rationale_key", problem, completion)
