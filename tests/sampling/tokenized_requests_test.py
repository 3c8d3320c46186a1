"""Compact requests against plain lists of the same tokens."""

import gc
import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from star_keras.sampling import ContinuousSampler, SampleRequest
from star_keras.sampling.sampling_methods import request_key
from star_keras.sampling.scheduler import PartialSample
from star_keras.sampling.tokenized_requests import TokenizedRequests

# Ids of one and of several bytes, with bytes of zeros at their ends.
ids = st.lists(st.sampled_from([0, 1, 255, 256, 65536, 2**30]), min_size=1, max_size=4)


@given(st.lists(st.tuples(ids, st.integers(1, 3)), min_size=1, max_size=12), ids)
def test_tokens_and_groups_are_those_of_plain_lists(prompts, prefix_ids):
    whole = [prompt for prompt, count in prompts for _ in range(count)]
    requests = [
        SampleRequest(prompt=(), name=str(i), seed=(i,), log_probs=i % 3 == 0)
        for i in range(len(whole))
    ]
    pairs = zip(requests, map(list, whole), strict=True)
    tokenized = TokenizedRequests(pairs, prefix_ids, seed=7)

    columns = zip(prefix_ids, *whole, strict=False)
    same = [len(set(column)) == 1 for column in columns]
    shared = min([*same, False].index(False), min(map(len, whole)) - 1)
    rests = [prompt[shared:] for prompt in whole]
    assert tokenized.prefix_ids == whole[0][:shared]
    assert list(tokenized) == rests
    assert tokenized.lengths.tolist() == list(map(len, rests))
    assert tokenized.log_probs.tolist() == [x.log_probs for x in requests]
    keys = [request_key(7, x.seed) for x in requests]
    np.testing.assert_array_equal(tokenized.key_data, np.stack(keys))

    order = sorted(range(len(rests)), key=lambda i: (-len(rests[i]), rests[i]))
    groups = itertools.groupby(order, key=lambda i: rests[i])
    assert list(tokenized.groups()) == [list(group) for _, group in groups]


class Requests(list):
    """Counts how often each request is read."""

    def __init__(self, requests):
        super().__init__(requests)
        self.read = []

    def __iter__(self):
        for i in range(len(self)):
            self.read.append(i)
            yield self[i]


def test_waiting_samples_are_made_when_their_turn_is_near(gpt_j, prompts, requests):
    sampler = ContinuousSampler(gpt_j, max_new_tokens=2, batch_size=7)
    wanted, most = Requests(requests(prompts * 5)), 0
    for batch in sampler.sample(wanted):
        assert batch
        most = max(most, sum(type(x) is PartialSample for x in gc.get_objects()))
    assert wanted.read == list(range(320))
    # Those in slots, those that have just left them, and those that wait next.
    assert 7 < most <= 7 + 7 + 7 + sampler.group_size
