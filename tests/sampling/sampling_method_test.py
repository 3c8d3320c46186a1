import jax
import numpy as np
import pytest
from jax import numpy as jnp

from star_keras.sampling.sampling_method import next_token, nucleus, request_key


def test_greedy_takes_the_first_of_the_likeliest():
    logits = jnp.array([[0.0, 2.0, 2.0], [3.0, 2.0, 1.0], [jnp.nan] * 3])
    unused = np.zeros((3, 2), "uint32"), np.zeros(3, "int32")
    assert next_token(logits, *unused).tolist() == [1, 0, 0]


def test_top_k_and_top_p_sample_only_the_likeliest():
    logits = jnp.tile(jnp.log(jnp.array([0.05, 0.5, 0.3, 0.15])), (400, 1))
    key_data = jax.random.key_data(jax.random.split(jax.random.key(0), 400))

    def drawn(**kwargs):
        tokens = next_token(logits, key_data, jnp.arange(400), temperature=1, **kwargs)
        return set(tokens.tolist())

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {1, 2}
    assert drawn(top_p=0.79) == {1, 2}
    assert drawn(top_p=0.81) == {1, 2, 3}
    assert drawn(top_k=3, top_p=0.4) == {1}


@pytest.mark.parametrize("kwargs", [{}, {"top_k": 3}, {"top_p": 0.85}])
def test_tokens_are_drawn_with_their_probabilities(kwargs):
    logits = np.log(np.array([0.05, 0.5, 0.3, 0.15]))
    key_data = np.stack([request_key(0, (i,)) for i in range(4000)])
    drawn = next_token(
        jnp.tile(logits, (4000, 1)),
        key_data,
        np.zeros(4000, "int32"),
        temperature=2.0,
        **kwargs,
    )
    expected = np.exp(logits / 2)
    if kwargs:
        # With this temperature both leave out the unlikeliest token alone.
        expected[0] = 0
    shares = np.bincount(drawn, minlength=4) / 4000
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.03)


@pytest.mark.parametrize("kwargs", [{}, {"top_p": 0.9}])
def test_whole_vocabulary_is_not_sorted_where_top_k_bounds_it(kwargs):
    program = jax.make_jaxpr(
        lambda *arrays: next_token(*arrays, temperature=1.0, top_k=5, **kwargs)
    )(np.zeros((2, 1000), "float32"), np.zeros((2, 2), "uint32"), np.zeros(2, "int32"))
    assert "top_k" in str(program)
    assert " sort[" not in str(program)


@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 0.999])
def test_nucleus_equals_that_of_sorted_weights(top_p):
    logits = 3 * np.random.default_rng(0).standard_normal((8, 2000))
    logits[1, :1000] = logits[1].max()  # ties
    logits[2, 1:] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True)).astype("float32")
    expected = np.zeros_like(weights)
    for row, values in zip(expected, weights.astype("float64"), strict=True):
        above = [values[values > value].sum() for value in values]
        kept = np.asarray(above) < top_p * values.sum()
        row[kept] = values[kept]
    np.testing.assert_array_equal(nucleus(weights, top_p), expected)


def test_requests_have_different_keys():
    keys = {
        tuple(request_key(seed, request).tolist())
        for seed in (0, 1)
        for request in ((), (1,), (2,), (1, 2), (2, 1))
    }
    assert len(keys) == 10
