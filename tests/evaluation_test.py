import itertools
import math

import pytest

from star_keras.evaluation import evaluate
from star_keras.grading import confidence_interval, majority_vote, pass_at_k
from star_keras.sampling import Completion, Sampler
from tests.conftest import Doubling


@pytest.mark.parametrize("correct", range(6))
@pytest.mark.parametrize("k", range(1, 6))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(correct, k):
    samples = [True] * correct + [False] * (5 - correct)
    subsets = list(itertools.combinations(samples, k))
    expected = sum(map(any, subsets)) / len(subsets)
    assert pass_at_k(5, correct, k) == pytest.approx(expected)


def test_majority_vote_leaves_out_the_unread_and_takes_the_first_of_equals():
    assert majority_vote(["3", None, None, None, "4", "4"]) == "4"
    assert majority_vote(["3", "4", "4", "3"]) == "3"
    assert majority_vote([None]) is None


def test_wilson_interval_of_a_known_case():
    # The ends are the shares whose own standard error reaches just to 0.8.
    for end in confidence_interval(0.8, 10):
        assert abs(0.8 - end) == pytest.approx(
            1.96 * (end * (1 - end) / 10) ** 0.5, 1e-3
        )
    assert confidence_interval(0.0, 50)[0] == pytest.approx(0)
    assert confidence_interval(1.0, 50)[1] == pytest.approx(1)


class ThreeTries(Sampler):
    """Sample 0 is right for odd numbers, 1 always, 2 never and unread."""

    def sample(self, requests, *, stop=()):
        batch = []
        for i, request in enumerate(requests):
            n = int(request.name.removeprefix("double-"))
            right = [n % 2 == 1, True, False][request.seed[2]]
            text = f" The answer is {2 * n if right else 1}."
            if request.seed[2] == 2:
                text = " Hm"
            batch.append(
                (i, Completion(text=text, num_tokens=3, finish_reason="length"))
            )
        yield batch[::-1]


def test_figures_of_several_samples():
    task = Doubling(held_out=4)
    figures, rationales = evaluate(
        task, task.problems("eval"), ThreeTries(), num_samples=3
    )
    assert [r.key[1:] for r in rationales[:4]] == [
        *[("double-100", n) for n in range(3)],
        ("double-101", 0),
    ]
    assert figures["accuracy"] == figures["pass@1"] == pytest.approx(1 / 2)
    assert figures["accuracy/odd"] == pytest.approx(2 / 3)
    assert figures["pass@3"] == 1
    # Even: a tie of "1" and the right answer, of which "1" came first.
    assert figures["maj@3"] == 1 / 2
    assert figures["unparsed"] == pytest.approx(1 / 3)
    assert figures["truncated"] == 1
    assert figures["num_problems"] == 4


def test_figures_of_nothing_are_nan():
    figures, _ = evaluate(Doubling(), [], ThreeTries())
    assert math.isnan(figures["accuracy"])
    assert (figures["accuracy_low"], figures["accuracy_high"]) == (0, 1)
