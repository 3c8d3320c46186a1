"""Statistics of graded samples: accuracy, pass@k, maj@k and their like."""

import collections
import math
from collections.abc import Callable, Iterable, Sequence

from star_keras.tasks.grading import Verdict


def accuracy_by_class(
    graded: Iterable[tuple[str, Verdict]], name: str, classes: Iterable[str] = ()
) -> dict[str, float]:
    """Share of correct completions, over all and for each problem class.

    Args:
        graded: Pairs `(problem class, verdict)`.
        name: Name of the metric.
        classes: Classes that have a metric even without a graded completion.

    Returns:
        `{name: ..., f"{name}/{problem class}": ...}`; NaN without a
        graded completion.
    """
    correct: dict[str, list[bool]] = {name: [] for name in classes}
    for problem_class, verdict in graded:
        correct.setdefault(problem_class, []).append(verdict == "correct")
    everything = [c for group in correct.values() for c in group]
    metrics = {name: mean(everything)}
    for problem_class in sorted(correct, key=natural_order):
        if problem_class:
            metrics[f"{name}/{problem_class}"] = mean(correct[problem_class])
    return metrics


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` samples is correct.

    Args:
        num_samples: Number of samples, at least `k`.
        num_correct: Number of correct samples.
        k: Number of attempts.

    Reference:
        [Evaluating Large Language Models Trained on Code](https://arxiv.org/abs/2107.03374),
        equation 1.
    """
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_vote(answers: Iterable[str | None]) -> str | None:
    """The most frequent text of an answer; the first of equally frequent ones."""
    votes = collections.Counter(a for a in answers if a is not None)
    return max(votes, key=votes.__getitem__) if votes else None


def maj_at_k(
    answers: Sequence[str | None], k: int, is_right: Callable[[str], bool]
) -> float:
    """Share of right majority votes: those of each `k` consecutive answers.

    Answers of one problem are drawn independently of each other, so this is an unbiased
    estimate of the chance that a vote of `k` is right.

    Args:
        answers: The answers to a problem, at least `k`.
        k: Answers that vote.
        is_right: Whether the winner is right.
    """
    starts = range(len(answers) - k + 1)
    winners = [majority_vote(answers[start : start + k]) for start in starts]
    return mean([winner is not None and is_right(winner) for winner in winners])


def confidence_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share observed in `count` trials.

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


def class_metrics(names: Iterable[str], name: str) -> dict[str, str]:
    """The metrics of the classes of one metric, in the natural order of the classes.

    Args:
        names: Names of metrics, e.g. `"eval_accuracy"` and `"eval_accuracy/2_digits"`.
        name: The metric of all classes, e.g. `"eval_accuracy"`.

    Returns:
        By name of the metric the class as a text, e.g. `"2 digits"`.
    """
    prefix = f"{name}/"
    classes = {n.removeprefix(prefix) for n in names if n.startswith(prefix)}
    return {
        f"{prefix}{c}": c.replace("_", " ") for c in sorted(classes, key=natural_order)
    }


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; NaN of an empty sequence."""
    return sum(values) / len(values) if values else float("nan")
