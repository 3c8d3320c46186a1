import random

import pytest

from experiments import pretrain


@pytest.mark.parametrize(
    ("operation", "answer"),
    [("&", "6 2 4"), ("|", "2 5 9"), ("~", "1 1 7"), ("^", "1 6 5 9"), ("@", "1 6 2 4")],
)
def test_operations_are_what_the_docstring_says(operation, answer):
    working, result = pretrain.apply_operation(operation, "624", "259", "117")
    assert result == answer
    assert len(working.splitlines()) == 5


def test_string_tasks_are_no_additions():
    draw = random.Random(0)
    for _ in range(200):
        prompt, response, _ = pretrain.string_example(draw, 4, hint=False)
        assert prompt.splitlines()[0] != "Input:"
        assert response.startswith("<scratch>\n")


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
        if prompt.startswith("Input:") and len(prompt.splitlines()[1]) > 7
    }
    assert longer == {"1 2 3 + 4 5 6", "1 2 3 4 + 5 6 7 8"}
