"""Accuracy, pass@k and maj@k of a model over a split of a task."""

from collections.abc import Sequence

from star_keras.grading import (
    accuracy_by_class,
    confidence_interval,
    majority_vote,
    pass_at_k,
)
from star_keras.rationales import Rationale, flexible_accuracy, shares_unread
from star_keras.sampling import Sampler, attempt
from star_keras.tasks import Problem, Task


def evaluate(
    task: Task,
    problems: Sequence[Problem],
    sampler: Sampler,
    *,
    prefix: str = "",
    iteration: int = 0,
    num_samples: int = 1,
) -> tuple[dict[str, float], list[Rationale]]:
    """Let a model try problems, and count what is right.

    Args:
        task: Their task.
        problems: What to try.
        sampler: Samples the completions; greedy unless you mean otherwise.
        prefix: The few-shot prompt, see `star_keras.prompts.few_shot_prompt`.
        iteration: The outer-loop iteration that the model is of, for records.
        num_samples: Completions a problem.

    Returns:
        The figures of `summarize`, and all completions in the order of the
        problems.
    """
    samples = [(problem, n) for problem in problems for n in range(num_samples)]
    done = {
        rationale.key[1:]: rationale
        for batch in attempt(
            task,
            samples,
            sampler,
            kind="evaluation",
            prefix=prefix,
            iteration=iteration,
        )
        for rationale in batch
    }
    rationales = [done[problem.id, n] for problem, n in samples]
    return summarize(task, problems, rationales), rationales


def summarize(
    task: Task, problems: Sequence[Problem], rationales: Sequence[Rationale]
) -> dict[str, float]:
    """Figures of an evaluation, all but the last two shares between 0 and 1.

    Args:
        task: The task.
        problems: What was tried.
        rationales: What came of it, the same number for each problem.

    Returns:
        - `accuracy` and `accuracy/<class>`: exact match, over all samples.
        - `accuracy_low`, `accuracy_high`: 95% interval of `accuracy`, over the
          problems.
        - `accuracy_flexible`: with `Task.extract_answer_flexible`.
        - `unparsed`, `truncated`: completions whose answer could not be read;
          that were cut off before their stop.
        - with `k > 1` samples a problem, `pass@1` to `pass@k` (unbiased), and
          `maj@k`, exact match of the majority vote.
        - `num_problems` and `num_samples`.
    """
    by_id = {problem.id: problem for problem in problems}
    groups: dict[str, list[Rationale]] = {problem.id: [] for problem in problems}
    for rationale in rationales:
        groups[rationale.problem].append(rationale)
    figures = accuracy_by_class(
        [(r.problem_class, r.verdict) for r in rationales], "accuracy"
    )
    low, high = confidence_interval(figures["accuracy"], len(problems))
    figures["accuracy_low"], figures["accuracy_high"] = low, high
    figures["accuracy_flexible"] = flexible_accuracy(task, problems, rationales)
    figures |= shares_unread(rationales)
    num_samples = len(rationales) // max(len(problems), 1)
    if num_samples > 1:
        correct = [
            sum(r.verdict == "correct" for r in group) for group in groups.values()
        ]
        for k in range(1, num_samples + 1):
            chances = [pass_at_k(num_samples, c, k) for c in correct]
            figures[f"pass@{k}"] = sum(chances) / len(chances)
        right = 0
        for name, group in groups.items():
            answer = majority_vote(r.answer for r in group)
            right += answer is not None and task.is_correct(answer, by_id[name])
        figures[f"maj@{num_samples}"] = right / len(problems)
    return figures | {"num_problems": len(problems), "num_samples": num_samples}
