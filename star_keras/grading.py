"""Reading the answer out of a completion, and judging it."""

from collections.abc import Iterable
from typing import Literal

from star_keras.tasks.task import Problem, Task

Verdict = Literal["correct", "incorrect", "unparsed", "invalid_working"]


def grade(
    task: Task, problem: Problem, completion: str, *, check_working: bool = False
) -> tuple[str | None, Verdict]:
    """Judge one completion.

    Args:
        task: Knows how an answer is read and compared.
        problem: What was asked.
        completion: What the model wrote.
        check_working: Whether the steps must hold too, see
            `Task.working_is_valid`.

    Returns:
        The answer that was read, and the verdict: `"unparsed"` if none could
        be read, `"invalid_working"` for a right answer after wrong steps.
    """
    answer = task.extract_answer(completion)
    if answer is None:
        return None, "unparsed"
    if not task.is_correct(answer, problem):
        return answer, "incorrect"
    if check_working and not task.working_is_valid(completion, problem):
        return answer, "invalid_working"
    return answer, "correct"


def accuracy_by_class(
    graded: Iterable[tuple[str, Verdict]], name: str, classes: Iterable[str] = ()
) -> dict[str, float]:
    """Share of correct completions, over all and for each problem class.

    Args:
        graded: Pairs `(problem class, verdict)`.
        name: What the figure is called.
        classes: Classes that get a figure even if nothing of them was graded.

    Returns:
        `{name: ..., f"{name}/{problem class}": ...}`; NaN where nothing was
        graded.
    """
    correct: dict[str, list[bool]] = {name: [] for name in classes}
    for problem_class, verdict in graded:
        correct.setdefault(problem_class, []).append(verdict == "correct")
    everything = [c for group in correct.values() for c in group]
    figures = {name: _mean(everything)}
    for problem_class in sorted(correct, key=natural_order):
        if problem_class:
            figures[f"{name}/{problem_class}"] = _mean(correct[problem_class])
    return figures


def natural_order(text: str) -> tuple:
    """Sort key that puts `"9_digits"` before `"10_digits"`."""
    head, _, tail = text.partition("_")
    return (0, int(head), tail) if head.isdecimal() else (1, 0, text)


def _mean(values) -> float:
    return sum(values) / len(values) if values else float("nan")
