"""Accuracy of a model over a split of a task."""

from collections.abc import Sequence

from star_keras.grading import accuracy_by_class
from star_keras.rationales import Rationale
from star_keras.sampling import Sampler, attempt
from star_keras.tasks import Problem, Task


def evaluate(
    task: Task,
    problems: Sequence[Problem],
    sampler: Sampler,
    *,
    prefix: str = "",
    iteration: int = 0,
) -> tuple[dict[str, float], list[Rationale]]:
    """Exact match over problems, over all and by class.

    Args:
        task: Their task.
        problems: What to try.
        sampler: Samples the completions; greedy unless you mean otherwise.
        prefix: The few-shot prompt, see `star_keras.prompts.few_shot_prompt`.
        iteration: The outer-loop iteration that the model is of, for records.

    Returns:
        `{"accuracy": ..., "accuracy/<class>": ...}` and all completions, in
        the order of the problems.
    """
    done = {
        rationale.problem: rationale
        for batch in attempt(
            task,
            problems,
            sampler,
            kind="evaluation",
            prefix=prefix,
            iteration=iteration,
        )
        for rationale in batch
    }
    rationales = [done[problem.id] for problem in problems]
    figures = accuracy_by_class(
        [(r.problem_class, r.verdict) for r in rationales], "accuracy"
    )
    return figures, rationales
