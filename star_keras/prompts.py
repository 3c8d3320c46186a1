"""Few-shot prompts, prompts of single problems, and hints in them."""

from star_keras.tasks.task import Problem, Task

EXAMPLE_SEPARATOR = "\n\n"


def few_shot_prompt(task: Task, *, hint: bool = False, direct: bool = False) -> str:
    """The worked examples of a task as one text, `""` if it has none.

    Args:
        task: The task.
        hint: Whether the examples show their answers as hints.
        direct: Whether the examples give answers without rationales.
    """
    return "".join(
        task.format_question(example.problem, hint=hint)
        + task.format_response("" if direct else example.rationale, example.problem)
        + EXAMPLE_SEPARATOR
        for example in task.few_shot_examples
    )


def add_hint(task: Task, problem: Problem, prompt: str) -> str:
    """Turn a prompt that ends with the problem's question into a hinted one.

    Raises:
        ValueError: if the prompt does not end with the plain question.
    """
    return _replace_question(task, problem, prompt, hint=True)


def strip_hint(task: Task, problem: Problem, prompt: str) -> str:
    """The inverse of `add_hint`.

    Raises:
        ValueError: if the prompt does not end with the hinted question.
    """
    return _replace_question(task, problem, prompt, hint=False)


def _replace_question(task: Task, problem: Problem, prompt: str, hint: bool) -> str:
    old = task.format_question(problem, hint=not hint)
    if not prompt.endswith(old):
        raise ValueError(
            "Invalid value for argument `prompt`. Expected it to end with the "
            f"question of problem {problem.id!r}, {old!r}. Received: "
            f"prompt={prompt!r}."
        )
    return prompt.removesuffix(old) + task.format_question(problem, hint=hint)
