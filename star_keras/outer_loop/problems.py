"""The problems of a run: checked once, then drawn for each iteration."""

import dataclasses
import json
import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

from star_keras.config import StarConfig
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.storage.records import GradedSample
from star_keras.tasks.read_number import read_number
from star_keras.tasks.task import Problem, Task
from star_keras.tasks.task_validation import check_problem, check_task
from star_keras.utils.errors import invalid


def problems_of_run(task: Task, config: StarConfig) -> dict[str, list[Problem]]:
    """The problems of `"train"` and, unless a run skips it, `"eval"`.

    Args:
        task: The task.
        config: All settings.

    Raises:
        ValueError: see `checked_problems`; if the column of the answers is in no file;
            if equations are to be checked, and an answer is no number; if steps are,
            and the task cannot.
    """
    check_working = config.selection.check_working
    if check_working and type(task).working_fault is Task.working_fault:
        rule = f"`False`, for the task {task.name!r} cannot check steps"
        remedy = "Leave it out, or give the task a `working_fault`."
        raise invalid("check_working", rule, True, remedy)
    is_known = config.selection.answers == "known"
    problems = {"train": checked_problems(task, "train", needs_answers=is_known)}
    if not config.run.skip_eval:
        problems["eval"] = checked_problems(task, "eval")
    elif "answer" in task.field_names and all(
        problem.answer is None for problem in problems["train"]
    ):
        # The column is perhaps misspelled. The error names those that are there.
        checked_problems(task, "eval")
    for problem in problems["train"] if config.selection.check_equations else ():
        if problem.answer is not None and read_number(problem.answer) is None:
            rule = f"`False`, for the answer {problem.answer!r} of {problem.id!r} is "
            raise invalid("check_equations", rule + "no number", True, "Leave it out.")
    return problems


def checked_problems(
    task: Task, split: str, *, needs_answers: bool = True
) -> list[Problem]:
    """The problems of a split.

    Args:
        task: The task.
        split: One of its splits.
        needs_answers: Whether a problem without an answer is an error.

    Raises:
        ValueError: if there is no such split or no problem, an id is not unique, or
            an answer is missing or can never be right, see
            `star_keras.tasks.task_validation`; names the problem.
    """
    check_task(task)
    task.check_split(split)
    problems = task.problems(split) if needs_answers else task.questions(split)
    if not isinstance(problems, Iterable):
        rule = "a sequence of `Problem` from `problems`"
        raise invalid("problems", rule, problems, f"Correct the task {task.name!r}.")
    problems = list(problems)
    if not problems:
        raise ValueError(f"The task {task.name!r} has no problems in {split!r}.")
    ids = set()
    for problem in problems:
        check_problem(task, problem, needs_answers)
        if problem.id in ids:
            raise ValueError(
                f"The task {task.name!r} has the id {problem.id!r} twice in "
                f"{split!r}. Ids must be unique."
            )
        ids.add(problem.id)
    return problems


def describe_problems(
    problems: Mapping[str, Sequence[Problem]], *prompts: PromptBuilder
) -> dict:
    """The identity of the task, its problems and prompts in a configuration.

    Args:
        problems: The problems of each split.
        *prompts: The prompt builders of the run.

    Returns:
        `task`, its name; `problems_crc32`, a check sum; and `checker`.
    """
    firsts = [group[0] for group in problems.values()]
    answered = [problem for problem in firsts if problem.answer is not None]
    texts = [
        {
            split: [dataclasses.asdict(problem) for problem in group]
            for split, group in problems.items()
        },
        # The first problem of each split stands for the format of all.
        [
            [p.prefix(hint), *(p.build(first, hint) for first in group)]
            for p in prompts
            for hint, group in ((False, firsts), (True, answered))
        ],
        [prompts[0].response("", first) for first in answered],
        list(prompts[0].stop),
    ]
    checksum = zlib.crc32(json.dumps(texts).encode())
    task = prompts[0].task
    checker = None if task.checker is None else describe_callable(task.checker)
    return {"task": task.name, "problems_crc32": checksum, "checker": checker}


def describe_callable(function) -> str:
    """A text that names a function, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(function))


def draw_stream(seed: int, iteration: int, purpose: str) -> random.Random:
    """A stream of random numbers that depends on nothing but its name."""
    return random.Random(f"{seed} {iteration} {purpose}")


def draw_problems(
    problems: Sequence[Problem], count: int | None, draw: random.Random
) -> Sequence[Problem]:
    """Problems of an iteration, as even over the problem classes as can be.

    Args:
        problems: All problems.
        count: Number of problems to draw; `None` for all.
        draw: Stream of random numbers.
    """
    if count is None or count >= len(problems):
        return problems
    classes: dict[str, list[Problem]] = {}
    for problem in problems:
        classes.setdefault(problem.problem_class, []).append(problem)
    drawn: list[Problem] = []
    # The smallest class first: larger classes make up for what it lacks.
    for left, group in zip(
        range(len(classes), 0, -1), sorted(classes.values(), key=len), strict=True
    ):
        share = -(-(count - len(drawn)) // left)
        drawn += draw.sample(group, min(share, len(group)))
    return drawn


def draw_failed(
    problems: Sequence[Problem],
    samples: Sequence[GradedSample],
    share: float,
    draw: random.Random,
) -> list[Problem]:
    """A share of the problems without a correct sample.

    Args:
        problems: The sampled problems.
        samples: Their samples.
        share: Chance of a failed problem to be drawn, from 0 to 1.
        draw: Stream of random numbers; gives one to each problem, so that the
            draw of a problem does not depend on the samples of others.
    """
    solved = {sample.problem for sample in samples if sample.verdict == "correct"}
    return [
        problem
        for problem in problems
        if draw.random() < share and problem.id not in solved
    ]
