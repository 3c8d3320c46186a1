"""Tasks: problems, and how their text is made and read."""

from star_keras.tasks.arithmetic import Arithmetic
from star_keras.tasks.jsonl import JsonLines
from star_keras.tasks.task import FewShotExample, Problem, Task

TASKS = {"arithmetic": Arithmetic, "jsonl": JsonLines}

__all__ = [
    "Arithmetic",
    "FewShotExample",
    "JsonLines",
    "Problem",
    "TASKS",
    "Task",
    "get",
]


def get(name: str, **kwargs) -> Task:
    """A task by its name.

    Args:
        name: `"arithmetic"` or `"jsonl"`.
        **kwargs: Arguments of the task's constructor.

    Raises:
        ValueError: if there is no such task.
    """
    if name not in TASKS:
        raise ValueError(
            "Invalid value for argument `name`. Expected one of "
            f"{sorted(TASKS)}. Received: name={name!r}."
        )
    return TASKS[name](**kwargs)
