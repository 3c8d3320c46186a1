import random

import pytest

from experiments import pretrain_examples
from star_keras.tasks import Arithmetic


@pytest.mark.parametrize(
    ("operation", "answer"), [("&", "6 2 4"), ("|", "2 5 9"), ("~", "1 1 7")]
)
def test_string_tasks_copy_from_the_right(operation, answer):
    working, result = pretrain_examples.copy_digits(operation, "624", "259", "117")
    last = answer.split()[-1]
    assert result == answer
    assert working.splitlines() == [
        f"6 2 4 {operation} 2 5 9 , C: 0",
        f"6 2 {operation} 2 5 , {last} C: 0",
        f"6 {operation} 2 , {' '.join(answer.split()[1:])} C: 0",
        f", {answer} C: 0",
        f"0 {answer}",
    ]


def test_string_tasks_are_no_additions():
    draw = random.Random(0)
    for _ in range(200):
        prompt, response, _ = pretrain_examples.string_example(draw, 4, hint=False)
        assert "+" not in prompt + response


def test_longer_additions_are_only_the_worked_ones():
    draw = random.Random(0)
    worked = [("123", "456"), ("1234", "5678")]
    examples = pretrain_examples.mixture(
        draw,
        500,
        frozenset(),
        additions={1: 0.3, 2: 0.3},
        worked=(0.2, worked),
        strings=(0.2, [1, 2, 3, 4, 5]),
        hints=0.3,
    )
    longer = {
        prompt.splitlines()[1]
        for prompt, _, _ in examples
        if "+" in prompt and len(prompt.splitlines()[1]) > 9
    }
    assert longer == {"1 2 3 + 4 5 6", "1 2 3 4 + 5 6 7 8"}


def test_what_is_held_out_is_not_shown():
    held_out = {p.id for p in Arithmetic(eval_problems=1000).problems("eval")}
    examples = pretrain_examples.mixture(
        random.Random(0),
        3000,
        held_out,
        additions={1: 0.5, 2: 0.5},
        worked=(0.0, []),
        strings=(0.0, []),
        hints=0.3,
    )
    shown = {prompt.splitlines()[1].replace(" ", "") for prompt, _, _ in examples}
    assert len(shown) > 1000
    assert not shown & held_out
    # What a run holds out is among it, whatever its other sizes are.
    run = Arithmetic(train_problems=40, eval_problems=200, examples_per_length=7)
    assert {p.id for p in run.problems("eval")} < held_out
