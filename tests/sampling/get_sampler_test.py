import pytest

from star_keras.sampling import (
    BatchSampler,
    Completion,
    ContinuousSampler,
    Sampler,
    SampleRequest,
    get_sampler,
)


class Engine(Sampler):
    """What stands for an engine outside: knows the model, answers by itself."""

    def __init__(self, model, *, max_new_tokens, **kwargs):
        self.model, self.max_new_tokens = model, max_new_tokens

    def sample(self, requests, *, stop=()):
        for i, request in enumerate(requests):
            text = request.prompt[-self.max_new_tokens :]
            yield [(i, Completion(text=text, num_tokens=1, finish_reason="stop"))]


def no_sampler(model, **kwargs):
    return model


def test_gpt_j_gets_the_continuous_sampler_unless_told_otherwise(make_model):
    model = make_model(num_layers=1)
    assert isinstance(get_sampler(model, max_new_tokens=4), ContinuousSampler)
    assert type(get_sampler(model, "batch", max_new_tokens=4)) is BatchSampler


def test_a_sampler_of_ones_own_is_found_by_its_name(make_model):
    model = make_model(num_layers=1)
    sampler = get_sampler(model, f"{__name__}:Engine", max_new_tokens=4, batch_size=8)
    assert sampler.model is model
    ((_, completion),) = next(
        sampler.sample([SampleRequest(prompt="What is it?", name="a")])
    )
    assert completion.text == " it?"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fast", r"'auto'|\"auto\".*\['batch', 'continuous'\].*name='fast'"),
        ("no_such_package:f", "name='no_such_package:f'"),
        (f"{__name__}:nothing", "nothing"),
        (f"{__name__}:no_sampler", "which returned <GPTJCausalLM"),
    ],
)
def test_unknown_samplers_are_named(make_model, name, message):
    with pytest.raises(ValueError, match=message):
        get_sampler(make_model(num_layers=1), name, max_new_tokens=4)
