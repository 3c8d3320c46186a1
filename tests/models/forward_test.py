"""Packed rows and caches, compared with the stock forward pass of whole sequences."""

import functools

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from star_keras.models import forward
from star_keras.models.forward import build_cache, extend_cache, head, hidden_states
from star_keras.testing import tiny_causal_lm

ATOL = 1e-4  # of logits up to 30


@pytest.fixture(scope="module", params=("gpt_j", "gemma2", "heads in rows"))
def cached(request):
    """A model, its logits of 12 tokens a row, and a compiled cached call.

    Gemma 2 has grouped heads, a window and soft caps. The last one is Gemma 2 with two
    heads side by side in the cache, as on a TPU.
    """
    with pytest.MonkeyPatch.context() as patch:
        family = request.param
        if family == "heads in rows":
            patch.setattr(forward, "heads_in_a_row", lambda *_: 2)
            family = "gemma2"
        yield cached_call(family)


def cached_call(family):
    model = tiny_causal_lm(family)
    tokens = np.random.default_rng(0).integers(1, 257, (3, 12), "int32")

    @jax.jit
    def call(*arguments, **options):
        x, cache = extend_cache(model, *arguments, **options)
        return head(model).logits(x), x, cache

    return model, tokens, logits_of(model, tokens), call


def logits_of(model, token_ids):
    return model({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})


def test_cache_is_a_tuple_of_a_key_and_a_value_for_each_layer(cached):
    model, tokens, _, call = cached
    empty = build_cache(model, 3, 12)
    assert isinstance(empty, tuple) and len(empty) == model.backbone.num_layers
    _, hidden_states, filled = call(tokens, empty, 0)
    assert hidden_states.shape == (3, 12, 32)
    assert jax.tree.structure(filled) == jax.tree.structure(empty)
    for before, after in zip(
        jax.tree.leaves(empty), jax.tree.leaves(filled), strict=True
    ):
        assert before.shape == after.shape
        assert before.shape[::2] == (3, 12)
        assert not before.any() and after.any()


def test_cached_call_in_one_go_equals_the_uncached_call(cached):
    model, tokens, expected, call = cached
    logits, _, _ = call(tokens, build_cache(model, 3, 12), 0)
    np.testing.assert_allclose(logits, expected, atol=ATOL, rtol=0)


def test_a_longer_cache_changes_nothing(cached):
    model, tokens, expected, call = cached
    logits, _, _ = call(tokens, build_cache(model, 3, 20), 0)
    np.testing.assert_allclose(logits, expected, atol=ATOL, rtol=0)


def test_cached_calls_token_by_token_equal_the_uncached_call(cached):
    model, tokens, expected, call = cached
    cache = build_cache(model, 3, 12)
    for i in range(12):
        logits, _, cache = call(tokens[:, i : i + 1], cache, i)
        np.testing.assert_allclose(logits[:, 0], expected[:, i], atol=ATOL, rtol=0)


def test_cached_calls_in_pieces_equal_the_uncached_call(cached):
    model, tokens, expected, call = cached
    cache = build_cache(model, 3, 12)
    for start in (0, 4, 8):
        logits, _, cache = call(tokens[:, start : start + 4], cache, start)
        np.testing.assert_allclose(
            logits, expected[:, start : start + 4], atol=ATOL, rtol=0
        )


@pytest.mark.parametrize("padding", (0, 3))
def test_prefix_that_all_rows_share_is_seen_by_each(cached, padding):
    model, tokens, _, call = cached
    tokens = np.array(tokens)
    tokens[:, :5] = tokens[0, :5]
    expected = logits_of(model, tokens)
    prefix = np.pad(tokens[:1, :5], ((0, 0), (0, padding)))
    _, _, prefix_cache = call(prefix, build_cache(model, *prefix.shape), 0)
    # Two tokens at once, then one by one; positions count from the prefix on.
    cache = build_cache(model, 3, 7)
    shared = {"prefix_cache": prefix_cache, "prefix_length": 5}
    logits, _, cache = call(tokens[:, 5:7], cache, 0, **shared)
    np.testing.assert_allclose(logits, expected[:, 5:7], atol=ATOL)
    for i in range(7, 12):
        at = np.full(3, i - 5)
        logits, _, cache = call(tokens[:, i : i + 1], cache, at, **shared)
        np.testing.assert_allclose(logits[:, 0], expected[:, i], atol=ATOL)


def test_cache_may_be_a_ring_that_all_rows_write_at_the_same_place(cached):
    model, tokens, expected, call = cached
    lengths = np.array([2, 7, 5])
    size, place = 12, 9  # places of the ring, and the next to be written
    _, _, filled = call(tokens[:, :size], build_cache(model, 3, size), 0)
    # Each row turned so that its next token comes at the place.
    turns = [place - n for n in lengths]
    cache = jax.tree.map(
        lambda x: jnp.stack([jnp.roll(r, n, 1) for r, n in zip(x, turns, strict=True)]),
        filled,
    )
    for step in range(5):
        at = lengths + step
        age = (place - np.arange(size)) % size
        held = np.where(at[:, None] >= age, at[:, None] - age, 99)
        logits, _, cache = call(
            np.take_along_axis(tokens, at[:, None], 1),
            cache,
            place,
            positions=at[:, None],
            cache_positions=held,
        )
        np.testing.assert_allclose(
            logits[:, 0], np.asarray(expected)[np.arange(3), at], atol=ATOL, rtol=0
        )
        place = (place + 1) % size


@pytest.mark.parametrize("piece", (1, 2))
def test_rows_of_different_lengths_go_on_where_each_one_ends(cached, piece):
    """What padding left in the cache behind a row's end is never seen."""
    model, tokens, expected, call = cached
    lengths = np.array([2, 8, 5])
    is_real = np.arange(12) < lengths[:, None]
    prompts = np.where(is_real, tokens, 7)
    logits, _, cache = call(prompts, build_cache(model, 3, 12), 0)
    np.testing.assert_allclose(
        np.asarray(logits)[is_real], np.asarray(expected)[is_real], atol=ATOL, rtol=0
    )
    for step in range(0, 4, piece):
        columns = lengths[:, None] + step + np.arange(piece)
        logits, _, cache = call(
            np.take_along_axis(tokens, columns, 1), cache, jnp.asarray(lengths + step)
        )
        np.testing.assert_allclose(
            logits,
            np.take_along_axis(expected, columns[..., None], 1),
            atol=ATOL,
            rtol=0,
        )


# === Gradient checkpointing ===


def loss_of(model, inputs, trainable, **options):
    mapping = list(zip(model.trainable_variables, trainable, strict=True))
    with keras.StatelessScope(mapping):
        x = hidden_states(model, inputs, training=True, **options)
    return jnp.mean((x.reshape(-1) - jnp.sin(jnp.arange(x.size))) ** 2)


def loss_and_weights(model, length, **options):
    token_ids = np.random.default_rng(0).integers(1, 257, (2, length), "int32")
    loss = functools.partial(loss_of, model, {"token_ids": token_ids}, **options)
    return loss, [v.value for v in model.trainable_variables]


def test_gradient_checkpointing_keeps_no_activations_inside_of_blocks():
    """What the backward pass gets from the forward pass, the weights apart."""
    model = tiny_causal_lm("gpt_j")

    def kept(gradient_checkpointing):
        loss, weights = loss_and_weights(
            model, 40, gradient_checkpointing=gradient_checkpointing
        )
        saved = jax.eval_shape(lambda w: jax.vjp(loss, w)[1], weights)
        shapes = [w.shape for w in weights]
        sizes = [x.size for x in jax.tree.leaves(saved) if x.shape not in shapes]
        return sum(sizes), max(sizes)

    all_of_it, largest = kept(False)
    scores = 2 * model.backbone.num_heads * 40 * 40
    assert largest >= scores
    little, largest = kept(True)
    assert largest < scores
    assert little < 0.4 * all_of_it


@pytest.mark.parametrize("family", ("gpt_j", "gpt2"))
def test_dropout_falls_the_same_way_when_it_is_computed_again(family):
    results, states = [], []
    for gradient_checkpointing in (False, True):
        keras.utils.set_random_seed(0)
        model = tiny_causal_lm(family, dropout=0.3, num_layers=1)
        loss, weights = loss_and_weights(
            model, 12, gradient_checkpointing=gradient_checkpointing
        )
        results.append(jax.jit(jax.value_and_grad(loss))(weights))
        with keras.StatelessScope() as scope:
            hidden_states(
                model,
                {"token_ids": np.ones((1, 4), "int32")},
                training=True,
                gradient_checkpointing=gradient_checkpointing,
            )
        values = [scope.get_current_value(v) for v in model.non_trainable_variables]
        # A block that is computed again gives all its states back.
        states.append(
            [
                v.value if x is None else x
                for v, x in zip(model.non_trainable_variables, values, strict=True)
            ]
        )
    (loss, gradients), (again, gradients_again) = results
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    for one, other in zip(gradients, gradients_again, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)
    started = [v.value for v in model.non_trainable_variables]
    advanced = [(x != y).any() for x, y in zip(states[0], started, strict=True)]
    assert sum(advanced) == 3  # one random state a dropout of hidden states
