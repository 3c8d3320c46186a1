import jax
import numpy as np
import pytest
from jax import numpy as jnp

from star_keras.sampling.draws import draw, keep_likeliest


def uniform_numbers(key_data, token_number):
    keys = jax.random.wrap_key_data(jnp.asarray(key_data), impl="threefry2x32")
    keys = jax.vmap(jax.random.fold_in)(keys, token_number)
    return np.asarray(jax.vmap(jax.random.uniform)(keys), "float64")


def logits_of(weights):
    with np.errstate(divide="ignore"):
        return np.log(weights.astype("float64")).astype("float32")


@pytest.mark.parametrize("size", (1, 127, 128, 129, 1000, 5000))
def test_draws_are_those_of_running_sums_in_float64(size):
    rng = np.random.default_rng(size)
    weights = rng.exponential(size=(500, size)) * (rng.uniform(size=size) < 0.3)
    weights[:, rng.integers(size)] = 1.0
    weights = weights.astype("float32")
    key_data = rng.integers(0, 2**32, (500, 2), "uint32")
    token_number = np.arange(500)
    sums = np.cumsum(weights, axis=-1, dtype="float64")
    targets = (1 - uniform_numbers(key_data, token_number)) * sums[:, -1]
    expected = np.sum(sums < targets[:, None], axis=-1)
    found = np.asarray(draw(logits_of(weights), key_data, token_number))
    # Rounding moves a draw that is at the border of two tokens.
    assert np.mean(found != expected) <= 0.01
    assert np.all(weights[np.arange(500), found] > 0)


def test_a_row_without_numbers_draws_the_first_token():
    logits = jnp.full((2, 300), jnp.nan)
    drawn = draw(logits, np.zeros((2, 2), "uint32"), np.zeros(2, "int32"))
    assert drawn.tolist() == [0, 0]


@pytest.mark.parametrize("number", (0.0, 0.5, 1 - 2**-24))
@pytest.mark.parametrize("large", (1.0, 1e8))
def test_zeros_are_not_drawn_at_the_borders(monkeypatch, number, large):
    """Where blocks begin and end with zeros, and rounding changes the sums."""
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(number))
    smaller = np.linspace(0.5, 30, 60, dtype="float32")
    weights = np.zeros((60, 384), "float32")
    weights[:, 5], weights[:, 200], weights[:, 210] = large, smaller, smaller
    keys = np.zeros((60, 2), "uint32")
    drawn = np.asarray(draw(logits_of(weights), keys, np.zeros(60, "int32")))
    assert np.all(weights[np.arange(60), drawn] > 0)
    if number > 0.5:
        assert np.all(drawn == 5)


@pytest.mark.parametrize("top_p", [0.001, 0.5, 0.9, 0.999])
def test_the_likeliest_are_those_of_sorted_weights(top_p):
    logits = 3 * np.random.default_rng(0).standard_normal((8, 2000))
    logits[1, :1000] = logits[1].max()  # ties
    logits[2, 1:] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True)).astype("float32")
    expected = np.zeros_like(weights)
    for row, values in zip(expected, weights.astype("float64"), strict=True):
        above = [values[values > value].sum() for value in values]
        kept = np.asarray(above) < top_p * values.sum()
        row[kept] = values[kept]
    np.testing.assert_array_equal(keep_likeliest(weights, top_p), expected)
