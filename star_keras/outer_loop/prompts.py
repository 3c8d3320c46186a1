"""Prompts: worked examples, then one problem, with or without a hint."""

from star_keras.tasks.task import Problem, Task

EXAMPLE_SEPARATOR = "\n\n"


class PromptBuilder:
    """Makes every prompt of a run.

    Args:
        task: Its worked examples and its format are used.
        few_shot: Whether prompts begin with the worked examples.
        direct: Whether the worked examples show answers without rationales.

    Example:
    ```python
    prompts = PromptBuilder(task)
    problem = task.problems("train")[0]
    assert prompts.build(problem).startswith(prompts.prefix())
    ```
    """

    def __init__(self, task: Task, *, few_shot: bool = True, direct: bool = False):
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
