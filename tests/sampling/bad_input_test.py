"""Arguments of samplers, scorer and learning rates that are out of bounds."""

import math

import numpy as np
import pytest

from star_keras.sampling import BatchSampler, ContinuousSampler, Scorer, get_sampler
from star_keras.testing import tiny_gpt_j
from star_keras.training.dataset import training_batches
from star_keras.training.learning_rates import WarmupSchedule


@pytest.fixture(scope="module")
def model():
    return tiny_gpt_j(num_layers=1, hidden_dim=16)


ARGUMENTS = [
    *(("max_new_tokens", v) for v in (0, -1, 2.5, 8.0, "8", None, True, math.nan)),
    *(("batch_size", v) for v in (0, -1, 2.5, "8", None, math.inf, 10**9)),
    *(("temperature", v) for v in (-0.1, math.nan, math.inf, "1", None, True)),
    *(("top_k", v) for v in (0, -1, 1.5, "3", True)),
    *(("top_p", v) for v in (0, -1, 1.1, math.nan, "0.5", True)),
    *(("min_p", v) for v in (0, -1, 1.1, math.nan, "0.5", True)),
    *(("seed", v) for v in (-1, 0.5, "0", None, True)),
]


@pytest.mark.parametrize("sampler", [BatchSampler, ContinuousSampler])
@pytest.mark.parametrize(("name", "value"), ARGUMENTS)
def test_arguments_of_a_sampler_are_checked(model, sampler, name, value):
    arguments = {"max_new_tokens": 4, name: value}
    if name in ("top_k", "top_p", "min_p"):
        arguments["temperature"] = 1.0
    with pytest.raises(ValueError, match=f"argument `{name}`. Expected.*Received"):
        sampler(model, **arguments)


def test_numbers_of_numpy_are_taken_as_what_they_are(model):
    sampler = BatchSampler(
        model, max_new_tokens=np.int64(4), temperature=np.float32(0.5), seed=np.int8(1)
    )
    assert sampler.get_config() == {
        "max_new_tokens": 4,
        "temperature": 0.5,
        "top_k": None,
        "top_p": None,
        "min_p": None,
        "seed": 1,
    }


@pytest.mark.parametrize("sampler", [BatchSampler, ContinuousSampler])
@pytest.mark.parametrize("wrong", [None, "model", object()])
def test_what_is_no_model_is_refused(sampler, wrong):
    with pytest.raises(ValueError, match="`model`. Expected a causal LM with a prepro"):
        sampler(wrong, max_new_tokens=4)


@pytest.mark.parametrize(
    "name",
    ["", "fast", "os", "os:", ":x", "os:nothing", "no_such_module:x", "os:getcwd"]
    + ["os:name", "builtins:dict", "builtins:len", "../a:b", "a b:c"],
)
def test_a_name_that_is_no_sampler_is_refused(model, name):
    with pytest.raises(ValueError, match="argument `name`. Expected.*Received: name="):
        get_sampler(model, name, max_new_tokens=4)


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None, True])
def test_arguments_of_a_scorer_are_checked(model, value):
    with pytest.raises(ValueError, match="argument `batch_size`. Expected"):
        Scorer(model, batch_size=value)
    if value is not None:
        with pytest.raises(ValueError, match="argument `max_length`. Expected"):
            Scorer(model, max_length=value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("learning_rate", v) for v in (0, -1, math.nan, math.inf, "1e-3", None)),
        *(("warmup_steps", v) for v in (-1, 0.5, math.nan, "1", None)),
        *(("decay_steps", v) for v in (-1, 0, 1.5, math.nan)),
        *(("hold_steps", v) for v in (-1, 1.5, "1")),
        *(("final_share", v) for v in (-1, 2, math.nan)),
    ],
)
def test_arguments_of_a_learning_rate_are_checked(name, value):
    arguments = {"learning_rate": 1e-3, "decay": "linear", "decay_steps": 5}
    with pytest.raises(ValueError, match=f"argument `{name}`. Expected"):
        WarmupSchedule(**{**arguments, name: value})


@pytest.mark.parametrize("name", ["batch_size", "sequence_length"])
@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, math.inf, "8", None, True])
def test_sizes_of_batches_are_checked_and_nothing_hangs(name, value):
    arguments = {"batch_size": 2, "sequence_length": 8, name: value}
    with pytest.raises(ValueError, match=f"argument `{name}`. Expected an integer"):
        next(training_batches([], pad_id=0, seed=[0], **arguments))
