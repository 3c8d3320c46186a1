"""Settings of the task, and the task that they make."""

import dataclasses
import inspect

from star_keras import tasks
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting

# Settings that are lists of numbers.
_NUMBERS = {"digits", "steps"}
_FIELDS = ("question_field", "answer_field", "choices_field", "class_field")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings(Settings):
    """The task and its problems."""

    task: str = setting("arithmetic", "The task.", choices=tuple(sorted(tasks.TASKS)))
    data_dir: str | None = setting(
        None,
        "commonsense_qa, gsm8k: directory of the official files. Default: they are "
        "downloaded.",
        is_path=True,
    )
    train_path: str | None = setting(
        None,
        "JSON lines, CSV, Parquet, hf://OWNER/NAME:SPLIT, DIRECTORY:SPLIT or "
        "tfds://NAME:SPLIT to train on. Not for arithmetic and word_problems.",
    )
    eval_path: str | None = setting(
        None, "Held-out problems, from the same sources as --train_path."
    )
    question_field: str | None = setting(
        None, "Column of the question in both sources. Default: question."
    )
    answer_field: str | None = setting(None, "Column of the answer. Default: answer.")
    choices_field: str | None = setting(
        None,
        "Column of the choices, for commonsense_qa and multiple_choice. Default: "
        "choices.",
    )
    class_field: str | None = setting(None, "Column of the class. Default: class.")
    prompts_file: str | None = setting(
        None,
        "JSON lines of a prompt format and worked examples in place of the task's own.",
        is_path=True,
    )
    checker: str | None = setting(
        None,
        "Comparison of answers: exact, numeric, math, choice, set, or "
        "package.module:name of a callable. Default: the comparison of the task.",
    )
    class_by: str = setting(
        "level",
        "math: class of a problem, for accuracy by class.",
        choices=("level", "subject", "both"),
    )
    validation_problems: int = setting(
        500, "gsm8k: training problems held out as the split `eval`.", at_least=0
    )
    digits: tuple[str, ...] = setting(
        ("1", "2", "3", "4", "5"), "arithmetic: numbers of digits."
    )
    steps: tuple[str, ...] = setting(
        ("1", "2", "3"), "word_problems: numbers of steps."
    )
    train_problems: int = setting(
        10_000,
        "arithmetic, word_problems: training problems a length or number of steps.",
        at_least=1,
    )
    eval_problems: int = setting(
        200,
        "arithmetic, word_problems: held-out problems a length or number of steps.",
        at_least=1,
    )
    largest_number: int = setting(
        2_000, "word_problems: upper limit of numbers and results.", at_least=20
    )
    examples_per_length: int = setting(
        2, "arithmetic: worked examples a length.", at_least=0
    )

    def check(self):
        used = {"task", "prompts_file", "checker", *self._parameters()}
        used |= set(_FIELDS) if "train_path" in used else set()
        has_choices = self.task in ("commonsense_qa", "multiple_choice")
        used -= set() if has_choices else {"choices_field"}
        for name, value in dataclasses.asdict(self).items():
            default = getattr(type(self), name)
            if name not in used and value != default:
                rule = f"{default!r} with task={self.task!r}, which does not use it"
                raise invalid(name, rule, value, "Leave it out.")
        needed = inspect.signature(tasks.TASKS[self.task]).parameters.values()
        if not all(getattr(self, p.name) for p in needed if p.default is p.empty):
            raise ValueError(f"--task={self.task} needs --train_path and --eval_path.")
        for name in _NUMBERS:
            values = getattr(self, name)
            if not all(value.isdecimal() for value in values):
                raise invalid(name, "numbers like 1,2,3", ",".join(values))
        default = type(self).validation_problems
        if self.eval_path and self.validation_problems != default:
            rule = f"{default} with --eval_path, which gives the split `eval`"
            value = self.validation_problems
            raise invalid("validation_problems", rule, value, "Leave one of them out.")
        if self.task in ("arithmetic", "word_problems"):  # made at once
            tasks.TASKS[self.task](**self._arguments())

    def _parameters(self):
        names = inspect.signature(tasks.TASKS[self.task]).parameters
        return [name for name in names if hasattr(type(self), name)]

    def make(self) -> tasks.Task:
        """The task.

        Raises:
            ValueError: if an argument of `star_keras.tasks.get` is invalid, or a file
                is damaged.
            OSError: if a file is missing.
        """
        names = (*_FIELDS, "prompts_file", "checker")
        arguments = self._arguments() | {name: getattr(self, name) for name in names}
        return tasks.get(self.task, **arguments)

    def _arguments(self):
        arguments = {name: getattr(self, name) for name in self._parameters()}
        for name in _NUMBERS & arguments.keys():
            arguments[name] = [int(value) for value in arguments[name]]
        return arguments
