import pytest
from keras_hub import models as hub

from star_keras import testing
from star_keras.config import RunConfig, SamplingConfig, StarConfig
from star_keras.sampling import (
    BatchSampler,
    Completion,
    ContinuousSampler,
    Sampler,
    SampleRequest,
    configured_sampler,
    get_sampler,
)
from star_keras.sampling.get_sampler import training_and_eval_sampler
from star_keras.sampling.sampling_methods import Temperature

GREEDY = {"temperature": 0, "top_k": None, "top_p": None, "min_p": None}


class Engine(Sampler):
    """Stands for an engine outside: knows the model, answers by itself."""

    def __init__(self, model, *, max_new_tokens, **kwargs):
        self.model, self.max_new_tokens = model, max_new_tokens

    def sample(self, requests, *, stop=()):
        for i, request in enumerate(requests):
            text = request.prompt[-self.max_new_tokens :]
            yield [(i, Completion(text=text, num_tokens=1, finish_reason="stop"))]


def no_sampler(model, **kwargs):
    return model


@pytest.fixture(scope="module")
def model(byte_tokenizer):
    return testing.tiny_gpt_j(tokenizer=byte_tokenizer, num_layers=1)


@pytest.fixture
def own_sampler():
    return testing.ScriptedSampler(lambda request: " 4.")


def test_gpt_j_gets_the_continuous_sampler_unless_told_otherwise(model):
    assert isinstance(get_sampler(model, max_new_tokens=4), ContinuousSampler)
    assert type(get_sampler(model, "batch", max_new_tokens=4)) is BatchSampler


def test_models_of_known_families_get_the_continuous_sampler(gpt2):
    assert type(get_sampler(gpt2, max_new_tokens=4)) is ContinuousSampler


def test_other_models_get_the_batch_sampler(byte_tokenizer):
    backbone = hub.BloomBackbone(258, 1, 2, 16, 32)
    preprocessor = hub.BloomCausalLMPreprocessor(byte_tokenizer)
    bloom = hub.BloomCausalLM(backbone, preprocessor)
    assert type(get_sampler(bloom, max_new_tokens=4)) is BatchSampler
    message = r"argument `model`.*'GPT2', 'GPTJ'.*BloomCausalLM.*`BatchSampler`"
    with pytest.raises(ValueError, match=message):
        ContinuousSampler(bloom, max_new_tokens=4)


def test_a_sampler_of_ones_own_is_found_by_its_name(model):
    sampler = get_sampler(model, f"{__name__}:Engine", max_new_tokens=4, batch_size=8)
    assert sampler.model is model
    ((_, completion),) = next(
        sampler.sample([SampleRequest(prompt="What is it?", name="a")])
    )
    assert completion.text == " it?"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fast", r'"auto".*\[\'batch\', \'continuous\'\].*name=\'fast\''),
        ("no_such_package:f", "name='no_such_package:f'.*No module named"),
        (f"{__name__}:nothing", "has no attribute 'nothing'"),
        (f"{__name__}:no_sampler", "returned <GPTJCausalLM"),
    ],
)
def test_unknown_samplers_are_named(model, name, message):
    with pytest.raises(ValueError, match=message):
        get_sampler(model, name, max_new_tokens=4)


def takes_nothing():
    """A callable that is no factory of samplers."""


def test_a_wrong_call_is_blamed_on_the_name_of_a_callable_alone(model):
    with pytest.raises(ValueError, match="`name`.*takes a model.*arguments are others"):
        get_sampler(model, f"{__name__}:takes_nothing", max_new_tokens=4)
    for name in ("auto", "batch", "continuous"):
        with pytest.raises(TypeError, match="'max_tokens'"):
            get_sampler(model, name, max_tokens=4)


def test_configured_sampler_has_the_settings_of_the_configuration(model):
    config = SamplingConfig(
        sampler="batch",
        max_new_tokens=9,
        sample_batch_size=3,
        temperature=0.5,
        top_k=7,
        top_p=0.9,
        min_p=0.02,
    )
    sampler = configured_sampler(model, config, seed=5)
    assert type(sampler) is BatchSampler
    assert sampler.batch_size == 3
    settings = {"max_new_tokens": 9, "seed": 5}
    choices = {"temperature": 0.5, "top_k": 7, "top_p": 0.9, "min_p": 0.02}
    assert sampler.get_config() == settings | choices
    sampler = configured_sampler(model, config, seed=5, greedy=True)
    assert type(sampler) is BatchSampler
    assert sampler.batch_size == 3
    assert sampler.get_config() == settings | GREEDY


def make_config(seed=0, **sampling):
    return StarConfig(sampling=SamplingConfig(**sampling), run=RunConfig(seed=seed))


def test_a_greedy_run_has_one_sampler_for_training_and_evaluation(model):
    sampler, eval_sampler = training_and_eval_sampler(model, make_config(seed=3))
    assert isinstance(sampler, ContinuousSampler)
    assert eval_sampler is sampler
    assert sampler.seed == 3


def test_evaluation_is_greedy_whatever_the_temperature_of_training(model):
    config = make_config(seed=3, temperature=0.7, top_p=0.9, samples_per_problem=4)
    sampler, eval_sampler = training_and_eval_sampler(model, config)
    assert sampler.method == Temperature(0.7, top_p=0.9)
    assert eval_sampler.get_config() == sampler.get_config() | GREEDY


def test_an_own_sampler_is_that_of_evaluation_too_unless_there_is_another(
    model, own_sampler
):
    config = make_config(samples_per_problem=4)
    assert training_and_eval_sampler(model, config, own_sampler) == (
        own_sampler,
        own_sampler,
    )
    other = testing.ScriptedSampler(lambda request: " 5.")
    assert training_and_eval_sampler(model, config, own_sampler, other) == (
        own_sampler,
        other,
    )
    sampler, eval_sampler = training_and_eval_sampler(
        model, make_config(), eval_sampler=other
    )
    assert isinstance(sampler, ContinuousSampler)
    assert eval_sampler is other


@pytest.mark.parametrize(
    "setting",
    [
        {"sampler": "batch"},
        {"max_new_tokens": 9},
        {"sample_batch_size": 3},
        {"temperature": 0.5},
    ],
)
def test_an_own_sampler_is_not_configured(model, own_sampler, setting):
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"`{name}`.*default.*{name}={value!r}"):
        training_and_eval_sampler(model, make_config(**setting), own_sampler)


def test_several_samples_of_a_greedy_sampler_are_an_error(model):
    config = make_config(samples_per_problem=2)
    for sampler in (None, get_sampler(model, max_new_tokens=4)):
        with pytest.raises(
            ValueError, match="`samples_per_problem`.*samples_per_problem=2.*temperat"
        ):
            training_and_eval_sampler(model, config, sampler)
