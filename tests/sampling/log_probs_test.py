"""Log-probabilities of sampled tokens, against logits of whole sequences."""

import dataclasses

import numpy as np
import pytest

from star_keras.sampling import BatchSampler, ContinuousSampler, Scorer, ScoreRequest
from tests.sampling.plain import PlainModel

PREFIX = "Q: one?\nA: 1.\n\n"
CHOICES = {"temperature": 0.7, "top_k": 40, "min_p": 0.01}
both = pytest.mark.parametrize("cls", [BatchSampler, ContinuousSampler])


@pytest.fixture(scope="module")
def plain(gpt_j):
    return PlainModel(gpt_j)


@pytest.fixture(scope="module")
def score(gpt_j):
    """Our own scorer: token ids and the number of the last ones to a log-likelihood."""
    scorer = Scorer(gpt_j, batch_size=1)

    def score(ids, count):
        request = ScoreRequest(context=ids[:-count], continuation=ids[-count:], name="")
        ((_, found),) = next(scorer.score([request]))
        return found.log_likelihood

    return score


@pytest.fixture
def record_ids(monkeypatch):
    """Makes a sampler keep the token ids of each completion by its text."""

    def record_ids(sampler):
        found, read = {}, sampler.reader.read

        def recording_read(ids, *arguments):
            completion = read(ids, *arguments)
            if completion is not None:
                found[completion.text] = list(ids)[: completion.num_tokens]
            return completion

        monkeypatch.setattr(sampler.reader, "read", recording_read)
        return found

    return record_ids


@both
@pytest.mark.parametrize("choices", [{}, CHOICES], ids=["greedy", "sampled"])
def test_log_probs_are_those_of_the_model_before_truncation(
    gpt_j, plain, score, prompts, cls, choices, run, requests, record_ids
):
    sampler = cls(gpt_j, max_new_tokens=24, batch_size=3, **choices)
    without = requests(prompts[:7], PREFIX)
    # Beside requests that do not ask.
    asking = [dataclasses.replace(r, log_probs=i > 1) for i, r in enumerate(without)]
    expected = run(sampler, without, ["?"])
    ids_of_text = record_ids(sampler)
    found = run(sampler, asking, ["?"])
    assert {c.finish_reason for c in found} == {"stop", "length"}
    for i, (request, completion) in enumerate(zip(asking, found, strict=True)):
        same = dataclasses.replace(completion, log_probs=None, token_ids=None)
        assert same == expected[i]
        if i < 2:
            assert completion.log_probs is None
            continue
        ids = ids_of_text[completion.text]
        assert completion.token_ids == tuple(ids)
        assert len(completion.log_probs) == completion.num_tokens == len(ids)
        prompt = list(sampler.tokenizer(request.prompt))
        logits = plain.logits(prompt + ids)[len(prompt) - 1 : -1]
        logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        known = logits[np.arange(len(ids)), ids]
        np.testing.assert_allclose(completion.log_probs, known, atol=2e-5)
        total = score(prompt + ids, len(ids))
        np.testing.assert_allclose(sum(completion.log_probs), total, atol=1e-4)


def test_they_cost_nothing_where_no_request_asks(gpt_j, prompts, run, requests):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=8, batch_size=2)
    wanted = requests(prompts[:3])
    run(sampler, wanted)
    steps = sampler.steps
    compiled = steps.decode._cache_size()
    assert compiled and not steps.decode_with_log_probs._cache_size()
    run(sampler, [dataclasses.replace(request, log_probs=True) for request in wanted])
    assert steps.decode._cache_size() == compiled
    assert steps.decode_with_log_probs._cache_size()
