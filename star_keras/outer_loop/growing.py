"""Problems that become more difficult: a further class when the last one is solved."""

from collections.abc import Callable, Mapping, Sequence

from star_keras.config import SamplingConfig
from star_keras.outer_loop.statistics import natural_order
from star_keras.tasks.task import Problem
from star_keras.utils.errors import invalid


def check_growing(problems: Mapping[str, Sequence[Problem]], config: SamplingConfig):
    """Check that there are classes to begin with and to add.

    Args:
        problems: The problems of each split.
        config: Its `first_classes` is checked.

    Raises:
        ValueError: if there are too few classes, or one has no held-out problem.
    """
    if config.first_classes is None:
        return
    classes = {p.problem_class for p in problems["train"]}
    if config.first_classes >= len(classes):
        rule = f"below the task's number of classes, {len(classes)}"
        remedy = "Give the task more, e.g. --digits=1,2,3,4,5,6,7."
        raise invalid("first_classes", rule, config.first_classes, remedy)
    missing = classes - {p.problem_class for p in problems["eval"]}
    if missing:
        rule = f"`None` without held-out problems of the class {min(missing)!r}"
        raise invalid("first_classes", rule, config.first_classes)


def open_problems(
    problems: Sequence[Problem],
    iteration: int,
    metrics: Callable[[int], Mapping[str, float]],
    config: SamplingConfig,
) -> Sequence[Problem]:
    """The training problems of the classes that an iteration may sample.

    An iteration adds the next class if the held-out accuracy of the last one was at
    least `grow_at` after the iteration before.

    Args:
        problems: All training problems.
        iteration: The iteration, from 1.
        metrics: Callable `iteration -> metrics` of the earlier iterations, from 0.
        config: Its `first_classes` and `grow_at` decide.
    """
    if config.first_classes is None:
        return problems
    names = sorted({p.problem_class for p in problems}, key=natural_order)
    count = config.first_classes
    for earlier in range(iteration):
        # (A small draw of held-out problems may lack a class.)
        accuracy = metrics(earlier).get(f"eval_accuracy/{names[count - 1]}", 0.0)
        if accuracy >= config.grow_at and count < len(names):
            count += 1
    return [p for p in problems if p.problem_class in names[:count]]
