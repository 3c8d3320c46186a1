"""Prompts: worked examples, then one problem, with or without a hint."""

from star_keras.tasks.checks import check_example, check_task
from star_keras.tasks.task import Problem, Task

EXAMPLE_SEPARATOR = "\n\n"


class PromptBuilder:
    """Makes every prompt of a run.

    Args:
        task: Its worked examples and its format are used.
        few_shot: Whether prompts begin with the worked examples.
        direct: Whether the worked examples show answers without rationales.

    Raises:
        ValueError: if it is no task, its `stop` is no sequence of texts, or the
            response of a worked example can never be right, see
            `star_keras.tasks.checks`.

    Example:
    ```python
    prompts = PromptBuilder(task)
    problem = task.problems("train")[0]
    assert prompts.build(problem).startswith(prompts.prefix())
    ```
    """

    def __init__(self, task: Task, *, few_shot: bool = True, direct: bool = False):
        check_task(task)
        if few_shot:
            for example in task.few_shot_examples:
                check_example(task, example)
        self.task = task
        self.few_shot = few_shot
        self.direct = direct
        self._prefixes = {hint: self._make_prefix(hint) for hint in (False, True)}

    def _make_prefix(self, hint):
        if not self.few_shot:
            return ""
        return "".join(
            self.task.format_question(example.problem, hint=hint)
            + self.task.format_response(
                "" if self.direct else example.rationale, example.problem
            )
            + EXAMPLE_SEPARATOR
            for example in self.task.few_shot_examples
        )

    def prefix(self, hint: bool = False) -> str:
        """The few-shot prompt: the worked examples, `""` without any.

        Args:
            hint: Whether the examples show their answers as hints.
        """
        return self._prefixes[hint]

    def build(self, problem: Problem, hint: bool = False) -> str:
        """The whole prompt of a problem.

        Args:
            problem: The problem.
            hint: Whether examples and problem show their answers as hints.
        """
        return self.prefix(hint) + self.task.format_question(problem, hint=hint)
