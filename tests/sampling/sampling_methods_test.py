import itertools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from star_keras.sampling.sampling_methods import (
    Greedy,
    request_key,
    sampling_method,
)


def reference(logits, *, temperature, top_k=None, top_p=None, min_p=None):
    """The distribution of the next token in float64, by sorting."""
    order = np.argsort(-logits, kind="stable")
    scaled = (logits - logits.max()) / temperature
    allowed = np.zeros(len(logits), bool)
    allowed[order[:top_k]] = True
    probabilities = np.where(allowed, np.exp(scaled), 0)
    probabilities /= probabilities.sum()
    if top_p is not None:
        # A token stays if those before it have less than `top_p`.
        before = np.cumsum(probabilities[order]) - probabilities[order]
        allowed[order] &= before < top_p
    if min_p is not None:
        allowed &= probabilities >= min_p * probabilities.max()
    probabilities = np.where(allowed, probabilities, 0)
    return probabilities / probabilities.sum()


def test_greedy_takes_the_first_of_the_likeliest():
    logits = jnp.array([[0.0, 2.0, 2.0], [3.0, 2.0, 1.0], [jnp.nan] * 3])
    unused = np.zeros((3, 2), "uint32"), np.zeros(3, "int32")
    assert Greedy().next_token(logits, *unused).tolist() == [1, 0, 0]
    assert sampling_method() == Greedy()


def test_a_temperature_that_float32_cannot_divide_by_is_refused():
    with pytest.raises(ValueError, match="`temperature`. Expected 0, or at least 0.0"):
        sampling_method(temperature=1e-39)


DRAWS = 4000
LOGITS = np.log([0.02, 0.3, 0.05, 0.25, 0.005, 0.2, 0.075, 0.1])
choices = itertools.product((0.7, 1.6), (None, 6), (None, 0.8), (None, 0.45))


@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), list(choices))
def test_tokens_are_drawn_with_their_probabilities(temperature, top_k, top_p, min_p):
    """Total variation to the reference; no token outside of it is ever drawn."""
    arguments = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
    }
    key_data = np.stack([request_key(0, (i,)) for i in range(DRAWS)])
    drawn = sampling_method(**arguments).next_token(
        jnp.tile(jnp.float32(LOGITS), (DRAWS, 1)), key_data, np.zeros(DRAWS, "int32")
    )
    shares = np.bincount(drawn, minlength=len(LOGITS)) / DRAWS
    expected = reference(LOGITS, **arguments)
    np.testing.assert_array_equal(shares > 0, expected > 0)
    # Of 4,000 draws among 8 tokens: about 0.013.
    assert abs(shares - expected).sum() / 2 < 0.03


def test_each_truncation_leaves_out_tokens_that_the_others_leave():
    distributions = {
        tuple(reference(LOGITS, temperature=1.6, **{name: value}) > 0)
        for name, value in (("top_k", 6), ("top_p", 0.8), ("min_p", 0.45))
    }
    assert len(distributions) == 3


@pytest.mark.parametrize("kwargs", [{}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_whole_vocabulary_is_not_sorted_where_top_k_bounds_it(kwargs):
    method = sampling_method(temperature=1.0, top_k=5, **kwargs)
    arrays = np.zeros((2, 1000), "float32"), np.zeros((2, 2), "uint32")
    program = jax.make_jaxpr(method.next_token)(*arrays, np.zeros(2, "int32"))
    assert "top_k" in str(program)
    assert " sort[" not in str(program)


@pytest.mark.parametrize(("min_p", "left"), [(0.495, {0, 1, 2}), (1.0, {0})])
def test_min_p_leaves_equal_tokens_together(min_p, left):
    logits = jnp.tile(jnp.log(jnp.array([1.0, 0.5, 0.5, 0.49, 0.0])), (200, 1))
    key_data = np.stack([request_key(0, (i,)) for i in range(200)])
    method = sampling_method(temperature=1.0, min_p=min_p)
    drawn = method.next_token(logits, key_data, np.zeros(200, "int32"))
    assert set(drawn.tolist()) == left


def test_requests_have_different_keys():
    keys = {
        tuple(request_key(seed, request).tolist())
        for seed in (0, 1)
        for request in ((), (1,), (2,), (1, 2), (2, 1))
    }
    assert len(keys) == 10
