import keras
import numpy as np
import pytest

from star_keras.training.learning_rates import WarmupSchedule


def rates(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_constant_rises_and_stays():
    found = rates(WarmupSchedule(2.0, warmup_steps=4), (0, 1, 3, 4, 1000))
    assert found == [0.0, 0.5, 1.5, 2.0, 2.0]


def test_without_a_warm_up_the_first_step_has_the_whole_rate():
    assert rates(WarmupSchedule(2.0), (0, 1, 9)) == [2.0, 2.0, 2.0]


def test_linear_falls_in_a_line_to_a_tenth_and_stays():
    schedule = WarmupSchedule(1.0, 10, decay="linear", decay_steps=100)
    found = rates(schedule, (0, 5, 10, 60, 110, 999))
    np.testing.assert_allclose(found, [0, 0.5, 1, 0.55, 0.1, 0.1], rtol=1e-6)


def test_rate_holds_before_it_falls():
    schedule = WarmupSchedule(1.0, 10, "linear", decay_steps=100, hold_steps=20)
    found = rates(schedule, (0, 5, 10, 30, 80, 130, 999))
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 0.55, 0.1, 0.1], rtol=1e-6)


@pytest.mark.parametrize("warmup_steps", (0, 7))
def test_cosine_is_that_of_keras(warmup_steps):
    ours = WarmupSchedule(1e-3, warmup_steps, decay="cosine", decay_steps=50)
    warm_up = {"warmup_target": 1e-3, "warmup_steps": warmup_steps}
    keras_own = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup_steps else 1e-3, 50, alpha=0.1, **(warmup_steps and warm_up or {})
    )
    steps = range(0, 70, 3)
    np.testing.assert_allclose(rates(ours, steps), rates(keras_own, steps), rtol=1e-5)


def test_schedule_comes_back_from_its_configuration():
    optimizer = keras.optimizers.Adam(
        WarmupSchedule(1e-3, 5, decay="cosine", decay_steps=9)
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    for step in (0, 3, 9, 99):
        again.iterations.assign(step)
        optimizer.iterations.assign(step)
        assert again.learning_rate == optimizer.learning_rate


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`decay`.*'cosine'.*decay='sine'"):
        WarmupSchedule(1.0, decay="sine")
    with pytest.raises(ValueError, match="`decay_steps`.*decay_steps=0"):
        WarmupSchedule(1.0, decay="linear")
    with pytest.raises(ValueError, match="`decay_steps`.*decay_steps=9"):
        WarmupSchedule(1.0, decay_steps=9)
