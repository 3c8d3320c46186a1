import pytest

from star_keras.config import TrainingConfig
from star_keras.outer_loop.step_schedules import (
    check_schedule,
    checked_steps,
    scheduled_steps,
)


def steps(iterations, steps_per_pass=7, **kwargs):
    config = TrainingConfig(**kwargs)
    return [scheduled_steps(config, n, steps_per_pass) for n in iterations]


def test_exponential_is_the_papers():
    assert steps(range(1, 6)) == [40, 48, 57, 69, 82]


def test_steady_adds():
    found = steps((1, 2, 3), schedule="steady", start_steps=40, add_steps=20)
    assert found == [40, 60, 80]


def test_settings_are_the_numbers_as_they_are_written():
    assert steps([4], start_steps=500, growth=1.2) == [864]
    schedule = {"schedule": "epochs", "base_epochs": 0.1, "add_epochs": 0.2}
    assert steps((1, 2, 3), 10, **schedule) == [1, 3, 5]


def test_epochs_follow_what_was_kept():
    schedule = {"schedule": "epochs", "base_epochs": 1, "add_epochs": 0.5}
    assert steps((1, 2, 3), 10, **schedule) == [10, 15, 20]
    assert steps([1], 0, **schedule) == [1]


@pytest.mark.parametrize(
    "steps", [3, lambda: 3, lambda iteration: 3, lambda *, a: 3, lambda a, b, c: 3]
)
def test_a_schedule_of_the_users_own_takes_two_numbers(steps):
    with pytest.raises(ValueError, match="`steps`.*`\\(iteration, steps_per_pass\\)`"):
        check_schedule(steps)


@pytest.mark.parametrize("steps", [max, lambda *numbers: 3, lambda a, b, c=3: 3])
def test_a_schedule_may_take_more(steps):
    check_schedule(steps)


@pytest.mark.parametrize("returned", [0, -1, 2.0, None])
def test_a_schedule_of_the_users_own_returns_a_number_of_steps(returned):
    with pytest.raises(ValueError, match="`steps`.*at least 1.*for iteration 3"):
        checked_steps(lambda iteration, steps_per_pass: returned, 3, 7)
    assert checked_steps(lambda iteration, steps_per_pass: 2, 3, 7) == 2
