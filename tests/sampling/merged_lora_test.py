"""Samplers of models with LoRA, against the model's own forward pass."""

import dataclasses

import numpy as np
import pytest

from star_keras.sampling import BatchSampler, ContinuousSampler
from star_keras.sampling.merged_lora import merged_values
from star_keras.testing import tiny_causal_lm
from tests.sampling.plain import PlainModel

both = pytest.mark.parametrize("cls", [BatchSampler, ContinuousSampler])
PROMPTS = ["Q: hi", "a", "What is 12 + 7?\nA:"]


@pytest.fixture(scope="module", params=["gpt_j", "gemma"])
def adapted(request):
    """A model whose adapters change its logits; the embedding's too, tied or not."""
    model = tiny_causal_lm(request.param, num_layers=1)
    names = model.backbone.default_lora_layer_names()
    model.backbone.enable_lora(3, target_layer_names=[*names, "token_embedding"])
    generator = np.random.default_rng(0)
    adapters = [v for v in model.variables if "lora" in v.path]
    assert len(adapters) == 2 * (2 * model.backbone.num_layers + 1)
    for variable in adapters:
        variable.assign(0.3 * generator.standard_normal(variable.shape))
    return model


@both
def test_merged_lora_has_the_log_probs_of_the_model(adapted, cls, run, requests):
    plain, before = PlainModel(adapted), adapted.get_weights()
    asking = [dataclasses.replace(r, log_probs=True) for r in requests(PROMPTS)]
    sampler = cls(adapted, max_new_tokens=8, batch_size=2)
    for request, completion in zip(asking, run(sampler, asking), strict=True):
        prompt = list(map(int, sampler.tokenizer(request.prompt)))
        ids = plain.greedy(prompt, 8)
        assert completion.text == sampler.tokenizer.detokenize(ids)
        logits = plain.logits(prompt + ids)[len(prompt) - 1 : -1]
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        known = logits[np.arange(len(ids)), ids]
        np.testing.assert_allclose(completion.log_probs[: len(ids)], known, atol=3e-5)
    for old, new in zip(before, adapted.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_compiled_step_has_nothing_left_of_the_adapters(adapted):
    def products(model):
        sampler = ContinuousSampler(model, max_new_tokens=8, batch_size=2)
        lowered = sampler.lower(prefix_length=0, prompt_length=8, cache_length=8)
        program = lowered["decode"].compile()
        return program.as_text().count(" dot("), program.cost_analysis()["flops"]

    family = "gpt_j" if "GPTJ" in type(adapted).__name__ else "gemma"
    assert products(adapted) == products(tiny_causal_lm(family, num_layers=1))


def test_the_shapes_of_plans_are_those_of_the_merged_values(adapted):
    sampler = ContinuousSampler(adapted, max_new_tokens=8, batch_size=2)
    assert [(x.shape, x.dtype) for x in sampler.variable_shapes()] == [
        (x.shape, x.dtype) for x in merged_values(adapted)
    ]


def test_weights_stay_when_a_call_fails(adapted, requests, monkeypatch):
    before = adapted.get_weights()
    sampler = ContinuousSampler(adapted, max_new_tokens=8, batch_size=2)

    def failing_decode(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(sampler.steps, "decode", failing_decode)
    with pytest.raises(MemoryError):
        list(sampler.sample(requests(PROMPTS)))
    for old, new in zip(before, adapted.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
