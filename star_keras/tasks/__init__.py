"""Tasks: problems, and the making and reading of their text."""

from star_keras.tasks.arithmetic import Arithmetic
from star_keras.tasks.commonsense_qa import CommonsenseQA
from star_keras.tasks.gsm8k import GSM8K
from star_keras.tasks.jsonl import JsonLines
from star_keras.tasks.sources import read_problems
from star_keras.tasks.task import FewShotExample, Problem, Task

TASKS = {
    "arithmetic": Arithmetic,
    "commonsense_qa": CommonsenseQA,
    "gsm8k": GSM8K,
    "jsonl": JsonLines,
}

__all__ = [
    "Arithmetic",
    "CommonsenseQA",
    "FewShotExample",
    "GSM8K",
    "JsonLines",
    "Problem",
    "TASKS",
    "Task",
    "get",
]


def get(name: str, *, prompts_file=None, **kwargs) -> Task:
    """A task by its name.

    Args:
        name: A key of `TASKS`.
        prompts_file: A JSON-lines file of worked examples in place of the
            task's own. Its lines are problems with a `rationale`.
        **kwargs: Arguments of the task's constructor.

    Raises:
        ValueError: if there is no such task, or the response of a worked
            example does not have the right answer.
        FileNotFoundError: if a file is missing.
    """
    if name not in TASKS:
        raise ValueError(
            "Invalid value for argument `name`. Expected one of "
            f"{sorted(TASKS)}. Received: name={name!r}."
        )
    task = TASKS[name](**kwargs)
    if prompts_file is not None:
        problems, examples = read_problems(prompts_file, task.make_problem, "example")
        if problems or not examples:
            raise ValueError(
                f"{prompts_file}: expected worked examples, each with a 'rationale'. "
                f"Received: {len(examples)} with and {len(problems)} without."
            )
        for example in examples:
            response = task.format_response(example.rationale, example.problem)
            answer = task.extract_answer(response)
            if answer is None or not task.is_correct(answer, example.problem):
                raise ValueError(
                    f"{prompts_file}: the response of example {example.problem.id!r} "
                    f"does not read as its answer {example.problem.answer!r}. "
                    f"Received: {response!r}, read as {answer!r}."
                )
        task.few_shot_examples = examples
    return task
