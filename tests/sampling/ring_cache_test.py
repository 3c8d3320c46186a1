import jax
import numpy as np
import pytest

from star_keras.models.forward import build_cache
from star_keras.sampling import ContinuousSampler


@pytest.mark.parametrize("lengths", [(64, 96), (96, 64), (64, 64)])
def test_a_resized_cache_keeps_the_newest_and_puts_the_next_first(gpt_j, lengths):
    steps = ContinuousSampler(gpt_j, max_new_tokens=4, batch_size=2).steps
    before, after = lengths
    # Each index holds the time at which it was written; the write index is 10.
    times = np.roll(np.arange(before), 10)
    cache = jax.tree.map(
        lambda x: x + times[None, None, :, None].astype(x.dtype),
        build_cache(gpt_j, 2, before),
    )
    cache = steps.ring.resize(cache, np.int32(10), after, 2)
    kept = min(lengths)
    for x in jax.tree.leaves(cache):
        assert x.shape[2] == after
        np.testing.assert_array_equal(
            x[0, 0, -kept:, 0], np.arange(before - kept, before)
        )
        assert not x[0, 0, :-kept, 0].any()


def test_inserted_prompts_end_before_the_write_index(gpt_j):
    steps = ContinuousSampler(gpt_j, max_new_tokens=4, batch_size=3).steps
    cache = jax.tree.map(lambda x: x - 1, build_cache(gpt_j, 3, 8))
    # Prompts of 2 and 3 tokens, padded to 4: the tokens 10, 11 and 20, 21, 22.
    tokens = np.array([[10, 11, 0, 0], [20, 21, 22, 0]])
    new = jax.tree.map(
        lambda x: x + tokens[:, None, :, None].astype(x.dtype), build_cache(gpt_j, 2, 4)
    )
    lengths, source = np.array([2, 3], "int32"), np.array([1, -1, 0], "int32")
    cache = steps.ring.insert(cache, np.int32(1), new, lengths, source)
    for x in jax.tree.leaves(cache):
        assert x[:, 0, :, 0].tolist() == [
            [22, 0, 0, 0, 0, 0, 20, 21],
            [-1] * 8,
            [11, 0, 0, 0, 0, 0, 0, 10],
        ]


def test_a_compact_cache_has_the_slots_in_the_order_asked_for(gpt_j):
    steps = ContinuousSampler(gpt_j, max_new_tokens=4, batch_size=4).steps
    slots = np.arange(4, dtype="float32")[:, None, None, None]
    cache = jax.tree.map(lambda x: x + slots, build_cache(gpt_j, 4, 8))
    cache = steps.ring.compact(cache, np.array([3, 1], "int32"))
    for x in jax.tree.leaves(cache):
        assert x.shape[2] == 8
        assert x[:, 0, 0, 0].tolist() == [3, 1]
