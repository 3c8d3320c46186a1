"""Requests with settings of their own, in one engine."""

import collections

import numpy as np
import pytest

from star_keras.sampling import ContinuousSampler, RequestSettings, SampleRequest
from tests.sampling.plain import PlainModel

SETTINGS = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.0, "top_p": 0.5},
    {"temperature": 1.3, "top_p": 0.9},
]


@pytest.fixture(scope="module")
def sampler(gpt_j):
    return ContinuousSampler(gpt_j, max_new_tokens=40, batch_size=5)


def complete(engine, wanted):
    """Completions of `{id: (request, arguments of add_request)}`."""
    for request_id, (request, arguments) in wanted.items():
        engine.add_request(request_id, request, **arguments)
    engine.close()
    return dict(pair for batch in engine for pair in batch)


def test_each_request_is_sampled_as_by_a_sampler_with_its_settings(
    gpt_j, sampler, prompts, requests, run
):
    asked = requests(prompts[:12])
    wanted = {
        i: (request, {"settings": RequestSettings(**SETTINGS[i % 4])})
        for i, request in enumerate(asked)
    }
    with sampler.engine(settings_by_request=True) as engine:
        found = complete(engine, wanted)
    assert sampler.steps.decode_with_log_probs._cache_size() == 0
    for kind, settings in enumerate(SETTINGS):
        own = ContinuousSampler(gpt_j, max_new_tokens=40, batch_size=5, **settings)
        expected = run(own, asked[kind::4])
        assert [found[i] for i in range(kind, 12, 4)] == expected


def test_a_completion_ends_at_its_own_limit(sampler, prompts, requests, run):
    asked = requests(prompts[:9])
    limits = [1 + 5 * i for i in range(8)]
    wanted = {
        i: (asked[0], {"settings": RequestSettings(max_new_tokens=limit)})
        for i, limit in enumerate(limits)
    } | {"most": (asked[0], {})}
    with sampler.engine(settings_by_request=True) as engine:
        found = complete(engine, wanted)
    (whole,) = run(sampler, asked[:1])
    assert found["most"] == whole
    for i, limit in enumerate(limits):
        assert found[i].num_tokens == min(limit, whole.num_tokens)
        assert whole.text.startswith(found[i].text)
        assert (found[i].finish_reason == "length") == (limit <= whole.num_tokens)


def test_new_tokens_are_reported_until_the_completion_comes(
    gpt_j, sampler, prompts, requests
):
    reported, wanted = collections.defaultdict(list), {}
    for i, prompt in enumerate(prompts[:6]):
        settings = RequestSettings(
            top_log_probs=i % 2 == 0, on_tokens=lambda i, *new: reported[i].append(new)
        )
        request = SampleRequest(prompt=prompt, name=str(i), log_probs=True)
        wanted[i] = request, {"settings": settings, "stop": ["zz"]}
    with sampler.engine(settings_by_request=True) as engine:
        found = complete(engine, wanted)
    assert reported
    plain = PlainModel(gpt_j)
    for i, completion in found.items():
        ids = [x for new_ids, _, _ in reported[i] for x in new_ids]
        assert len(ids) < completion.num_tokens
        assert tuple(ids) == completion.token_ids[: len(ids)]
        log_probs = [x for _, new, _ in reported[i] for x in new]
        assert tuple(log_probs) == completion.log_probs[: len(ids)]
        if i % 2:
            assert completion.top_log_probs is None
            assert all(top is None for *_, top in reported[i])
            continue
        top = [x for *_, new in reported[i] for x in new]
        assert tuple(top) == completion.top_log_probs[: len(ids)]
        prompt = list(sampler.tokenizer(prompts[i]))
        logits = plain.logits(prompt + list(completion.token_ids))[len(prompt) - 1 :]
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        for row, pairs in zip(logits[:-1], completion.top_log_probs, strict=True):
            best = np.argsort(-row)[:5]
            np.testing.assert_allclose([x for _, x in pairs], row[best], atol=2e-5)


def test_bad_settings_are_refused_at_once(gpt_j, sampler, requests):
    (request,) = requests(["Q:"])
    long = SampleRequest(prompt="x" * 250, name="long")
    match = "`settings`. Expected `None`"
    with sampler.engine() as engine, pytest.raises(ValueError, match=match):
        engine.add_request("a", request, settings=RequestSettings())
    with sampler.engine(settings_by_request=True) as engine:
        with pytest.raises(ValueError, match="`max_new_tokens`. Expected at most 40"):
            settings = RequestSettings(max_new_tokens=41)
            engine.add_request("a", request, settings=settings)
        with pytest.raises(ValueError, match="max_new_tokens=40 that makes 290"):
            engine.add_request("a", long)
        with pytest.raises(ValueError, match="max_new_tokens=7 that makes 257"):
            engine.add_request("a", long, settings=RequestSettings(max_new_tokens=7))
        engine.add_request("a", long, settings=RequestSettings(max_new_tokens=6))
    drawing = ContinuousSampler(gpt_j, max_new_tokens=4, temperature=1.0)
    with pytest.raises(ValueError, match="`settings_by_request`. Expected `False`"):
        drawing.engine(settings_by_request=True)
    for wrong in ({"max_new_tokens": 0}, {"temperature": -1}, {"top_p": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RequestSettings(**wrong)
