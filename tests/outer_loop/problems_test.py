import dataclasses
import json
import random

import pytest

from star_keras import tasks
from star_keras.config import RunConfig, SamplingConfig, SelectionConfig, StarConfig
from star_keras.outer_loop.problems import (
    checked_problems,
    describe_callable,
    describe_problems,
    draw_problems,
    problems_of_run,
)
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks import Problem
from star_keras.testing import Doubling


def test_task_without_problems_is_an_error():
    for arguments, split in (({"train": 0}, "train"), ({"held_out": 0}, "eval")):
        with pytest.raises(
            ValueError, match=f"'doubling' has no problems in '{split}'"
        ):
            checked_problems(Doubling(**arguments), split)


def test_problem_without_an_answer_is_named():
    class Unanswered(Doubling):
        def problems(self, split):
            return [Problem(id="p17", question="q", answer=" ")]

    with pytest.raises(ValueError, match="`answer`.*' '.*'p17'"):
        checked_problems(Unanswered(), "train")


class Questions(Doubling):
    """Every third training problem, or all of them, without an answer."""

    def __init__(self, every=3):
        super().__init__(train=12)
        self._every = every

    def problems(self, split):
        return [
            dataclasses.replace(p, answer=None)
            if split == "train" and number % self._every == 0
            else p
            for number, p in enumerate(super().problems(split))
        ]


def test_only_training_problems_of_a_vote_may_have_no_answer():
    with pytest.raises(ValueError, match="`answer`.*'double-0'.*--answers=majority"):
        problems_of_run(Questions(), StarConfig())
    config = StarConfig(
        sampling=SamplingConfig(rationalize=False, samples_per_problem=2),
        selection=SelectionConfig(answers="majority", check_equations=True),
    )
    problems = problems_of_run(Questions(), config)
    assert problems["train"] == Questions().problems("train")
    assert sum(p.answer is None for p in problems["train"]) == 4

    class HeldOut(Doubling):
        def problems(self, split):
            return [dataclasses.replace(super().problems(split)[0], answer=None)]

    with pytest.raises(ValueError, match="`answer`.*'double-100'"):
        problems_of_run(HeldOut(), config)


@pytest.mark.parametrize("name", ["jsonl", "gsm8k"])
@pytest.mark.parametrize("skip_eval", [True, False])
def test_a_misspelled_column_of_answers_is_named_in_a_vote(name, skip_eval, tmp_path):
    def write(file, *records):
        (tmp_path / file).write_text("".join(json.dumps(r) + "\n" for r in records))
        return str(tmp_path / file)

    def problems(train, column, **kwargs):
        task = tasks.get(name, train_path=train, answer_field=column, **kwargs)
        return problems_of_run(task, config)["train"]

    config = StarConfig(
        sampling=SamplingConfig(rationalize=False, samples_per_problem=2),
        selection=SelectionConfig(answers="majority"),
        run=RunConfig(skip_eval=skip_eval),
    )
    answered = write("a.jsonl", *({"question": q, "key": 7} for q in "xyz"))
    bare = write("b.jsonl", *({"question": q} for q in "rst"))
    message = r"line 1: .*`answer_field`. Expected one of .*'key', 'question'.*'kye'"
    with pytest.raises(ValueError, match=message):
        problems(answered, "kye", eval_path=answered)
    if name == "gsm8k":
        with pytest.raises(ValueError, match=message):
            problems(answered, "kye", validation_problems=1)
    # The held-out problems may be the only ones with the column.
    assert [p.answer for p in problems(bare, "key", eval_path=answered)] == [None] * 3


def test_questions_alone_have_a_description():
    def describe(*problems):
        return describe_problems(
            {"train": problems}, PromptBuilder(Questions(), few_shot=False)
        )["problems_crc32"]

    first, second = Questions(every=1).problems("train")[:2]
    known = dataclasses.replace(first, answer="0")
    assert len({describe(*x) for x in ([first], [second], [known])}) == 3


def test_problem_ids_must_be_unique():
    class Twice(Doubling):
        def problems(self, split):
            return super().problems(split) * 2

    with pytest.raises(ValueError, match="id 'double-0' twice"):
        checked_problems(Twice(), "train")


@pytest.mark.parametrize(("count", "odd"), [(10, 3), (4, 2), (None, 3)])
def test_drawn_problems_are_even_over_classes(count, odd):
    few = ("double-1", "double-3", "double-5")
    problems = [
        p
        for p in Doubling().problems("train")
        if p.problem_class == "even" or p.id in few
    ]
    drawn = draw_problems(problems, count, random.Random(0))
    classes = [p.problem_class for p in drawn]
    assert classes.count("odd") == odd
    assert len(set(drawn)) == len(drawn) == (count or len(problems))


def test_the_description_changes_with_problems_and_prompts():
    def describe(task, **kwargs):
        return describe_problems(
            {"train": task.problems("train")}, PromptBuilder(task, **kwargs)
        )["problems_crc32"]

    class OtherStop(Doubling):
        stop = ("\n",)

    class OtherFormat(Doubling):
        def format_question(self, problem, hint=False):
            return super().format_question(problem, hint=hint) + " "

    sums = [
        describe(Doubling()),
        describe(Doubling(train=23)),
        describe(Doubling(), few_shot=False),
        describe(Doubling(), direct=True),
        describe(OtherStop()),
        describe(OtherFormat(), few_shot=False),
    ]
    assert len(set(sums)) == 6
    assert describe(Doubling()) == sums[0]


def test_a_function_has_the_same_description_in_every_process():
    assert "0x" not in describe_callable(lambda iteration, n: 2)


def test_a_task_that_cannot_check_steps_refuses_it():
    config = StarConfig(selection=SelectionConfig(check_working=True))
    with pytest.raises(ValueError, match="`check_working`.*'doubling'.*Leave it out"):
        problems_of_run(Doubling(), config)
