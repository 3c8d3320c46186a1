import random

import pytest

from experiments import pretrain


@pytest.mark.parametrize(
    ("operation", "answer"), [("&", "6 2 4"), ("|", "2 5 9"), ("~", "1 1 7")]
)
def test_string_tasks_copy_from_the_right(operation, answer):
    working, result = pretrain.copy_digits(operation, "624", "259", "117")
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
        prompt, response, _ = pretrain.string_example(draw, 4, hint=False)
        assert "+" not in prompt + response


def test_longer_additions_are_only_the_worked_ones():
    draw = random.Random(0)
    worked = [("123", "456"), ("1234", "5678")]
    examples = pretrain.mixture(
        draw,
        500,
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
