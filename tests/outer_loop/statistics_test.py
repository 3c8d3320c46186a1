import itertools
import math

import pytest

from star_keras.outer_loop.statistics import (
    accuracy_by_class,
    class_metrics,
    confidence_interval,
    maj_at_k,
    majority_vote,
    pass_at_k,
)


def test_accuracy_by_class_is_a_share_in_natural_order():
    graded = [
        ("10_digits", "correct"),
        ("2_digits", "correct"),
        ("2_digits", "unparsed"),
        ("2_digits", "incorrect"),
    ]
    metrics = accuracy_by_class(graded, "accuracy")
    assert list(metrics) == ["accuracy", "accuracy/2_digits", "accuracy/10_digits"]
    assert metrics["accuracy"] == 0.5
    assert metrics["accuracy/2_digits"] == 1 / 3


def test_metrics_of_classes_are_those_of_one_metric_in_natural_order():
    names = ["eval_accuracy/10_digits", "eval_accuracy", "train_accuracy/1_digit"]
    names += ["eval_accuracy/2_digits", "eval_accuracy_low"]
    assert list(class_metrics(names, "eval_accuracy").items()) == [
        ("eval_accuracy/2_digits", "2 digits"),
        ("eval_accuracy/10_digits", "10 digits"),
    ]


def test_accuracy_of_nothing_is_nan():
    assert math.isnan(accuracy_by_class([], "accuracy")["accuracy"])


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


@pytest.mark.parametrize(
    ("k", "expected"), [(1, 3 / 6), (2, 3 / 5), (3, 1), (4, 1), (5, 1), (6, 1)]
)
def test_every_k_consecutive_answers_vote(k, expected):
    answers = ["7", "8", "8", "8", None, None]
    # Of pairs win 7, which came first, 8, 8, 8 and none.
    assert maj_at_k(answers, k, lambda answer: answer == "8") == pytest.approx(expected)


@pytest.mark.parametrize("k", range(1, 6))
def test_votes_are_right_as_often_as_those_of_a_random_choice(k):
    orders = list(itertools.permutations(["7", None, "8", "8", "7"]))
    found = [maj_at_k(order, k, lambda answer: answer == "8") for order in orders]
    expected = [majority_vote(order[:k]) == "8" for order in orders]
    assert sum(found) == pytest.approx(sum(expected))
