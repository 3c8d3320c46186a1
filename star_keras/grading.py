"""Reading the answer out of a completion, and judging it."""

import collections
import math
from collections.abc import Iterable, Sequence
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
    figures = {name: mean(everything)}
    for problem_class in sorted(correct, key=natural_order):
        if problem_class:
            figures[f"{name}/{problem_class}"] = mean(correct[problem_class])
    return figures


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` samples is correct.

    Args:
        num_samples: Samples that were drawn, at least `k`.
        num_correct: How many of them are correct.
        k: How many samples one would draw.

    Reference:
        [Evaluating Large Language Models Trained on Code](https://arxiv.org/abs/2107.03374),
        equation 1.
    """
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_vote(answers: Iterable[str | None]) -> str | None:
    """The most frequent answer that could be read; of equals the first."""
    votes = collections.Counter(a for a in answers if a is not None)
    return max(votes, key=votes.__getitem__) if votes else None


def confidence_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share that was seen in `count` trials.

    Reference:
        Wilson, [Probable Inference](https://doi.org/10.2307/2276774) (1927).
    """
    if not count:
        return 0.0, 1.0
    z = 1.959964
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    spread = math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    spread *= z / (1 + z**2 / count)
    return max(0.0, center - spread), min(1.0, center + spread)


def natural_order(text: str) -> tuple:
    """Sort key that puts `"9_digits"` before `"10_digits"`."""
    head, _, tail = text.partition("_")
    return (0, int(head), tail) if head.isdecimal() else (1, 0, text)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")
