"""Tasks: problems, and the making and reading of their text."""

import inspect
from collections.abc import Callable

from star_keras.tasks.arithmetic import Arithmetic
from star_keras.tasks.checkers import get_checker
from star_keras.tasks.commonsense_qa import CommonsenseQA
from star_keras.tasks.gsm8k import GSM8K
from star_keras.tasks.hendrycks_math import HendrycksMath
from star_keras.tasks.jsonl import JsonLines
from star_keras.tasks.multiple_choice import MultipleChoice
from star_keras.tasks.prompt_format import read_prompts_file
from star_keras.tasks.record_sources import existing_file
from star_keras.tasks.task import FewShotExample, Problem, Task
from star_keras.tasks.word_problems import WordProblems
from star_keras.tasks.yes_no import YesNo
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

TASKS = {
    "arithmetic": Arithmetic,
    "commonsense_qa": CommonsenseQA,
    "gsm8k": GSM8K,
    "jsonl": JsonLines,
    "math": HendrycksMath,
    "multiple_choice": MultipleChoice,
    "word_problems": WordProblems,
    "yes_no": YesNo,
}

__all__ = [
    "Arithmetic",
    "CommonsenseQA",
    "FewShotExample",
    "GSM8K",
    "HendrycksMath",
    "JsonLines",
    "MultipleChoice",
    "Problem",
    "TASKS",
    "Task",
    "WordProblems",
    "YesNo",
    "get",
]


_FIELDS = ("question", "answer", "choices", "class")


def get(
    name: str,
    *,
    prompts_file=None,
    checker: str | Callable | None = None,
    question_field: str | None = None,
    answer_field: str | None = None,
    choices_field: str | None = None,
    class_field: str | None = None,
    **kwargs,
) -> Task:
    """A task by its name.

    Args:
        name: A key of `TASKS`.
        prompts_file: A JSON-lines file of worked examples in place of the
            task's own. Its lines are problems with a `rationale`. The first line
            may have a `format`, see `star_keras.tasks.prompt_format`.
        checker: Comparison of answers, see `star_keras.tasks.checkers.get_checker`.
            Defaults to the comparison of the task.
        question_field: Column of the question in `train_path` and `eval_path`.
            Defaults to `question`.
        answer_field: Column of the answer. Defaults to `answer`.
        choices_field: Column of the choices. Defaults to `choices`.
        class_field: Column of the class. Defaults to `class`.
        **kwargs: Arguments of the task's constructor.

    Raises:
        ValueError: if there is no such task, an argument is unknown, missing or
            invalid, or a worked example holds a stop string or does not have the
            right answer.
        FileNotFoundError: if a file is missing.
    """
    if not isinstance(name, str) or name not in TASKS:
        raise invalid("name", f"one of {sorted(TASKS)}", name)
    parameters = inspect.signature(TASKS[name]).parameters
    columns = question_field, answer_field, choices_field, class_field
    field_names = {f: c for f, c in zip(_FIELDS, columns, strict=True) if c is not None}
    for field, column in field_names.items():
        if "train_path" not in parameters:
            rule = f"`None` with the task {name!r}, which reads no files"
            raise invalid(f"{field}_field", rule, column, "Leave it out.")
        checked(f"{field}_field", str, column)
    for argument, value in kwargs.items():
        if argument not in parameters:
            rule = f"one of the arguments of the task {name!r}, {list(parameters)}"
            raise invalid(argument, rule, value, "Leave it out.")
    for argument, parameter in parameters.items():
        if parameter.default is parameter.empty and kwargs.get(argument) is None:
            rule = f"the path of a file, which the task {name!r} needs"
            raise invalid(argument, rule, kwargs.get(argument))
    task = TASKS[name](**kwargs)
    task.field_names = field_names
    if checker is not None:
        task.checker = get_checker(checker)
    if prompts_file is not None:
        path = existing_file(prompts_file, "prompts_file")
        read_prompts_file(task, path)
    return task
