import dataclasses
import math

import pytest

from star_keras.outer_loop.evaluation import evaluate
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.testing import Doubling, ScriptedSampler


def three_tries(request):
    """Sample 0 is right for odd numbers, 1 always, 2 never and unread."""
    n = int(request.name.removeprefix("double-"))
    number = request.seed[2]
    if number == 2:
        return " Hm"
    right = number == 1 or n % 2
    return f" The answer is {2 * n if right else 1}."


def test_metrics_of_several_samples():
    task = Doubling(held_out=4)
    metrics, samples = evaluate(
        PromptBuilder(task),
        task.problems("eval"),
        ScriptedSampler(three_tries, batch_size=5),
        num_samples=3,
    )
    assert [(s.problem, s.sample) for s in samples[:4]] == [
        *[("double-100", n) for n in range(3)],
        ("double-101", 0),
    ]
    assert metrics["accuracy"] == metrics["pass@1"] == pytest.approx(1 / 2)
    assert metrics["accuracy/odd"] == pytest.approx(2 / 3)
    assert metrics["pass@3"] == 1
    # Even: a tie of "1" and the right answer, of which "1" came first.
    assert metrics["maj@3"] == 1 / 2
    # The second pair is the right answer and one that is not read.
    assert metrics["maj@2"] == 3 / 4
    assert metrics["maj@1"] == metrics["pass@1"]
    assert metrics["unparsed"] == pytest.approx(1 / 3)
    assert metrics["truncated"] == 0
    assert metrics["num_problems"] == 4
    assert metrics["accuracy_low"] < 1 / 2 < metrics["accuracy_high"]


def test_a_held_out_problem_needs_an_answer():
    problem = dataclasses.replace(Doubling().problems("eval")[0], answer=None)
    sampler = ScriptedSampler(three_tries)
    with pytest.raises(ValueError, match="`problems`.*'double-100' has not"):
        evaluate(PromptBuilder(Doubling()), [problem], sampler)


def test_metrics_of_nothing_are_nan():
    metrics, _ = evaluate(PromptBuilder(Doubling()), [], ScriptedSampler(three_tries))
    assert math.isnan(metrics["accuracy"])
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == (0, 1)
