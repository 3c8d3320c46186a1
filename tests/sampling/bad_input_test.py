"""Arguments of samplers, scorer and learning rates that are out of bounds."""

import math

import numpy as np
import pytest

from star_keras.sampling import (
    BatchSampler,
    ContinuousSampler,
    SampleRequest,
    Scorer,
    get_sampler,
)
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


WRONG_STOP = ["", "\n", ("",), ("\n", 1), (None,), b"\n", None, 3, {"\n"}, ("\ud800",)]


@pytest.fixture(scope="module", params=[BatchSampler, ContinuousSampler])
def sampler(request, model):
    return request.param(model, max_new_tokens=4)


@pytest.mark.parametrize("stop", WRONG_STOP)
def test_what_are_no_stop_strings_is_refused(sampler, stop):
    request = SampleRequest(prompt="Q:", name="a")
    with pytest.raises(ValueError, match="`stop`. Expected a sequence of texts.*e.g."):
        next(sampler.sample([request], stop=stop))


@pytest.mark.parametrize(
    ("prompts", "wrong"),
    [
        (["12", (5, 6)], "'12'"),
        ([(5, 6), "12"], "'12'"),
        ([(5, 6), "Q:"], "'Q:'"),
        ([(5, 6), (5, -1)], "-1"),
        ([(5, 6), (10**6, 5)], "1000000"),
        ([(5, 6), (5, 1.5)], "1.5"),
        ([(5, 6), (5, math.nan, 2)], "nan"),
        ([(5, 6), (5, True)], "True"),
        ([(5, 6), (5, "6")], "'6'"),
        ([(5, 6), (5, None)], "None"),
        ([(5, 6), np.array([5.0])], ".*5.0."),
        ([(5, 6), None], "None"),
        ([(5, 6), 5], "5"),
        ([(5, 6), b"12"], "b'12'"),
    ],
)
def test_prompts_that_are_no_token_ids_are_refused(sampler, prompts, wrong):
    requests = [SampleRequest(prompt=p, name=f"<{p!r}>") for p in prompts]
    message = f"`prompt`. Expected token ids from 0 to .*prompt={wrong}. Correct the re"
    with pytest.raises(ValueError, match=message) as error:
        sampler.check(requests)
    with pytest.raises(ValueError, match=message):
        next(sampler.sample(requests))
    name = f"<{prompts[prompts[0] != '12']!r}>"
    assert f"Correct the request {name!r}." in str(error.value)


def test_integers_of_numpy_are_token_ids(sampler):
    size = sampler.model.backbone.vocabulary_size
    ids = [(0, size - 1), np.array([3, 4], "int16"), [np.int64(5)]]
    found = sampler.tokenize_prompts([SampleRequest(prompt=p, name="") for p in ids])
    assert found == [[0, size - 1], [3, 4], [5]]


@pytest.mark.parametrize("wrong", ["12", (-1,), (10**6,), (1.5,), 3])
def test_an_engine_refuses_a_prefix_that_is_no_token_ids(model, wrong):
    sampler = ContinuousSampler(model, max_new_tokens=4)
    with pytest.raises(ValueError, match="`prefix_ids`. Expected token ids from 0 to"):
        sampler.engine(wrong)


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
