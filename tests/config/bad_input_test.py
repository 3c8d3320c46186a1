"""Every setting refuses what its rule excludes: by name, with rule and value."""

import math

import numpy as np
import pytest
from absl import app, flags

from experiments.command_line import define_flags, from_flags
from star_keras.config import (
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    SelectionConfig,
    TrainingConfig,
)
from star_keras.utils.settings import settings_of

CLASSES = [SamplingConfig, SelectionConfig, TrainingConfig, RunConfig, OptimizerConfig]
# Values of another type, by the type of the setting.
WRONG = {
    int: [1.5, 2.0, "2", True, math.nan, math.inf, [1], np.float64(3)],
    float: ["0.5", True, math.nan, math.inf, -math.inf, [0.5], np.float32("nan")],
    bool: ["no", "True", 0, 1, 1.0, [True]],
    str: [1, True, b"auto", ["auto"]],
}
# Texts of flags that are no such value. (absl itself refuses other types.)
WRONG_FLAGS = {int: ["1.5", "nan", ""], float: ["nan", "inf", "-inf", "low"]}


def beyond(rule):
    """Values outside the bounds of a rule."""
    if rule.choices is not None:
        return ["", "other", rule.choices[0].upper()]
    values = []
    if rule.at_least is not None:
        values += [rule.at_least - 1, np.int64(rule.at_least - 1)]
    if rule.at_most is not None:
        values.append(rule.at_most + 1)
    if rule.above is not None:
        values += [rule.above, rule.above - 1]
    if rule.below is not None:
        values.append(rule.below)
    return values


ROWS = [
    (cls, item.name, value)
    for cls in CLASSES
    for item in settings_of(cls)
    for value in [*WRONG[item.kind], *beyond(item.rule)]
    if not (item.kind is str and item.rule.choices is None and value == [])
]


def test_there_are_hundreds():
    assert len(ROWS) > 300


@pytest.mark.parametrize("cls", CLASSES)
def test_every_setting_names_argument_rule_and_value(cls):
    for owner, name, value in ROWS:
        if owner is not cls:
            continue
        with pytest.raises(ValueError, match=f"argument `{name}`. Expected") as error:
            cls(**{name: value})
        assert f"Received: {name}={value!r}." in str(error.value)


@pytest.mark.parametrize("cls", CLASSES)
def test_flags_are_refused_by_name_before_anything_is_imported(cls):
    for item in settings_of(cls):
        bounds = [str(v) for v in beyond(item.rule)] if item.kind is not str else []
        for text in [*WRONG_FLAGS.get(item.kind, []), *bounds]:
            values = flags.FlagValues()
            define_flags(cls, values=values)
            with pytest.raises(
                (flags.IllegalFlagValueError, app.UsageError), match=item.name
            ):
                values(["script", f"--{item.name}={text}"])
                from_flags(["script"], cls, values=values)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8])
def test_integers_of_numpy_are_taken_as_what_they_are(kind):
    config = TrainingConfig(batch_size=kind(4), growth=kind(2))
    assert (type(config.batch_size), config.batch_size) == (int, 4)
    assert (type(config.growth), config.growth) == (float, 2.0)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_and_booleans_of_numpy_are_taken_as_what_they_are(kind):
    config = SamplingConfig(temperature=kind(0.5), direct=np.bool_(True))
    assert (type(config.temperature), config.temperature) == (float, 0.5)
    assert config.direct is True
