"""Shared beginnings of prompts, and the work that they save."""

import pytest

from star_keras.sampling import ContinuousSampler, SampleRequest
from star_keras.sampling.found_prefixes import FoundPrefixes

A, B = "Q: one?\nA: 1.\n\n" * 6, "Q: two?\nA: 2.\n\n" * 7


def ids(*parts):
    return [x for start, count in parts for x in range(start, start + count)]


def test_a_beginning_is_found_the_second_time_and_the_longest_is_taken():
    computed = []

    def compute(token_ids):
        computed.append(list(token_ids))
        return tuple(token_ids)

    found = FoundPrefixes(compute, most=2)
    short, long = ids((0, 70)), ids((0, 150))
    assert found.find([ids((0, 150), (300, 9))]) is None
    assert found.find([ids((0, 150), (400, 9))]) == (tuple(long), 150)
    assert found.find([ids((0, 70), (500, 90))]) == (tuple(short), 70)
    assert found.find([ids((0, 150), (600, 2))]) == (tuple(long), 150)
    # One more token is too few for a cache of its own.
    assert found.find([ids((0, 150), (300, 1), (8, 3))]) == (tuple(long), 150)
    # A group that shares nothing with others.
    own = ids((900, 64))
    group = [ids((900, 64), (1, 2)), ids((900, 64), (7, 3))]
    assert found.find(group) == (tuple(own), 64)
    assert computed == [long, short, own]
    # The short one was used longest ago.
    assert found.find([ids((0, 70), (700, 9))]) == (tuple(short), 70)
    assert computed == [long, short, own, short]


def test_two_tokens_are_left_of_each_prompt():
    found = FoundPrefixes(tuple, most=1)
    for _ in range(2):
        result = found.find([ids((0, 80))])
    assert result == (tuple(range(78)), 78)
    assert found.find([[5], ids((0, 80))]) is None
    assert found.find([[5]]) is None


@pytest.mark.parametrize("slots", [3, 64])
def test_completions_are_the_same_with_less_work(
    gpt_j, prompts, run, slots, monkeypatch
):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=8, batch_size=slots)
    tokens, prefill = [], sampler.steps.prefill
    texts = [(A, B, A)[i % 3] + prompts[i][-9:] for i in range(18)] + prompts[:4]
    requests = [SampleRequest(prompt=text, name=text) for text in texts]
    expected = run(sampler, requests)

    def counting_prefill(variables, token_ids, prefix):
        tokens.append(int((token_ids > 0).sum()))
        return prefill(variables, token_ids, prefix)

    monkeypatch.setattr(sampler.steps, "prefill", counting_prefill)
    done = {}
    with sampler.engine(find_prefixes=True) as engine:
        # One after another, so that groups have one prompt and later several.
        for i in range(6):
            engine.add_request(i, requests[i])
            while engine.has_unfinished_requests():
                done.update(engine.step())
        engine.add_requests(dict(enumerate(requests[6:], 6)))
        engine.close()
        for batch in engine:
            done.update(batch)
    assert [done[i] for i in range(len(texts))] == expected
    whole = sum(len(sampler.tokenizer(text)) - 1 for text in texts)
    # With 64 slots the last 16 prompts are groups with both beginnings, without gain.
    assert sum(tokens) < whole * (0.5 if slots == 3 else 0.92)


def test_a_given_prefix_and_found_ones_do_not_go_together(gpt_j):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=8, batch_size=2)
    with pytest.raises(ValueError, match="`find_prefixes`. Expected `False`"):
        sampler.engine([1, 2], find_prefixes=True)
