import jax
import jax.numpy as jnp
import numpy as np
import pytest

from star_keras.models.attention import (
    attend,
    attend_causally,
    attend_one_query,
    attend_to_prefix,
    merge_attention,
    write_to_cache,
)

SCALE = {"scale": 8**-0.5}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def assert_same_outputs(found, expected, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(
        found.outputs(), expected.outputs(), rtol=rtol, atol=atol
    )


@pytest.mark.parametrize("groups", (1, 3, 9))
def test_one_query_for_the_matrix_unit_of_a_tpu_has_the_same_parts(groups):
    key, value = normal(2, 2, 4, 6, 8)
    query = normal(2, 4, groups, 1, 8, seed=1)
    mask = np.arange(6)[None, None, :] < 4
    for found, expected in zip(
        attend_one_query(query, key, value, mask, **SCALE),
        attend(query, key, value, mask, **SCALE),
        strict=True,
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", (2, 3, 9))
@pytest.mark.parametrize("soft_cap", (None, 1.5))
def test_keys_times_few_queries_have_the_same_parts(groups, soft_cap):
    key, value = normal(2, 2, 4, 6, 8)
    query = normal(2, 4, groups, 1, 8, seed=1)
    mask = np.arange(6)[None, None, :] < 4
    options = {"soft_cap": soft_cap, **SCALE}
    for found, expected in zip(
        attend(query, key, value, mask, few_queries=True, **options),
        attend(query, key, value, mask, **options),
        strict=True,
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", (5, 129, 300))
def test_blocks_of_queries_have_outputs_and_gradients_of_all_at_once(length):
    key, value = normal(2, 2, 3, length, 8)
    query, cotangent = normal(2, 2, 3, 2, length, 8, seed=1)
    segments = np.arange(length) // 90
    mask = np.tril(segments[:, None] == segments)[None]

    def outputs_and_gradients(attention):
        @jax.jit
        def compute(*arrays):
            found, pull_back = jax.vjp(
                lambda *arrays: attention(*arrays, mask, **SCALE).outputs(), *arrays
            )
            return found, *pull_back(cotangent)

        return compute(query, key, value)

    for found, expected in zip(
        outputs_and_gradients(attend_causally),
        outputs_and_gradients(attend),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_merged_parts_of_the_keys_are_attention_to_all_of_them():
    query = normal(2, 3, 2, 4, 8)
    key, value = 5 * normal(2, 2, 3, 9, 8, seed=1)
    mask = np.tril(np.ones((1, 4, 9), "bool"), 5)
    near, far = (
        attend(query, key[:, :, keys], value[:, :, keys], mask[:, :, keys], **SCALE)
        for keys in (slice(6), slice(6, None))
    )
    expected = attend(query, key, value, mask, **SCALE)
    assert_same_outputs(merge_attention(near, far), expected)
    assert_same_outputs(merge_attention(far, near), expected)


@pytest.mark.parametrize("padding", (0, 3))
def test_shared_prefix_is_seen_like_a_copy_of_it_in_each_row(padding):
    query = normal(2, 3, 2, 4, 8)
    key, value = normal(2, 1, 3, 5 + padding, 8, seed=1)
    copies = [np.repeat(array[:, :, :5], 2, 0) for array in (key, value)]
    filled = (np.arange(5 + padding) < 5)[None, None]
    options = {**SCALE, "soft_cap": 2.0}
    found = attend_to_prefix(query, key, value, filled, **options)
    everything = np.ones((1, 4, 5), "bool")
    assert_same_outputs(found, attend(query, *copies, everything, **options))


@pytest.mark.parametrize("soft_cap", (None, 1.5))
def test_grouped_queries_attend_like_a_plain_loop(soft_cap):
    """One query after the other, in float64."""
    query, key, value = normal(2, 2, 3, 4, 8), *normal(2, 2, 2, 6, 8, seed=1)
    mask = normal(2, 4, 6, seed=2) > 0
    mask[..., 0] = True
    found = attend(query, key, value, mask, scale=0.7, soft_cap=soft_cap).outputs()
    for b, h, g, q in np.ndindex(query.shape[:4]):
        scores = 0.7 * key[b, h].astype("float64") @ query[b, h, g, q]
        if soft_cap:
            scores = soft_cap * np.tanh(scores / soft_cap)
        weights = np.exp(scores) * mask[b, q]
        expected = weights @ value[b, h] / weights.sum()
        np.testing.assert_allclose(found[b, h, g, q], expected, rtol=1e-4, atol=1e-5)


def test_scores_and_softmax_are_float32_in_any_dtype():
    """Scores of 256 and 257 are the same number in bfloat16."""
    query = jnp.zeros((1, 1, 1, 1, 4), "bfloat16").at[..., :2].set(16)
    key = jnp.zeros((1, 1, 2, 4), "bfloat16").at[..., 0].set(32)
    key = key.at[:, :, 1, 1].set(0.125)
    value = jnp.asarray([[[[0.0] * 4, [1.0] * 4]]], "bfloat16")
    parts = attend(query, key, value, np.ones((1, 1, 2), "bool"), scale=0.5)
    assert parts.highest.dtype == parts.total.dtype == "float32"
    assert parts.outputs().dtype == "bfloat16"
    np.testing.assert_allclose(parts.outputs(), 1 / (1 + np.exp(-1)), rtol=1e-2)


@pytest.mark.parametrize("index", (1, np.array([0, 3])), ids=("scalar", "by_row"))
def test_cache_takes_updates_at_the_write_index_and_nowhere_else(index):
    cache, update = normal(2, 2, 6, 4), normal(2, 2, 3, 4, seed=1)
    expected = cache.copy()
    for row, start in enumerate(np.broadcast_to(index, 2)):
        expected[row, :, start : start + 3] = update[row]
    found = write_to_cache(cache, update.astype("float64"), jnp.asarray(index))
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, expected)
