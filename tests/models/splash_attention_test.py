"""The kernel for TPUs, interpreted, against attention with all scores."""

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from star_keras import testing
from star_keras.models import attention_modes
from star_keras.models.forward import hidden_states
from star_keras.models.splash_attention import splash_applies, splash_attend
from tests.conftest import run_on_eight_devices

LENGTH = 256


def attend_with_all_scores(
    query, key, value, segment_ids, *, scale, sliding_window=None, soft_cap=None
):
    """Softmax of a matrix of scores for each head, on repeated keys."""
    group, length = query.shape[2:4]
    key, value = (jnp.repeat(x[:, :, None], group, axis=2) for x in (key, value))
    scores = jnp.einsum("bhgqd,bhgkd->bhgqk", query, key) * scale
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    places = np.arange(length)
    distance = places[:, None] - places[None]
    seen = (distance >= 0) & (distance < (sliding_window or length))
    seen = seen & (segment_ids[:, :, None] == segment_ids[:, None])
    scores = jnp.where(seen[:, None, None], scores, -jnp.inf)
    return jnp.einsum("bhgqk,bhgkd->bhgqd", jax.nn.softmax(scores), value)


def make_arrays(heads, group, head_dim, dtype="float32"):
    """Query, key, value, and the weights of a loss; segments that cross blocks."""
    rng = np.random.default_rng(0)
    shapes = [(2, heads, group, LENGTH, head_dim)] + 2 * [(2, heads, LENGTH, head_dim)]
    arrays = [jnp.asarray(rng.normal(size=s), dtype) for s in (*shapes, shapes[0])]
    segment_ids = jnp.asarray(np.sort(rng.integers(0, 3, (2, LENGTH)), axis=1), "int32")
    return arrays[:3], arrays[3], segment_ids


def outputs_and_gradients(attend, arrays, weights, segment_ids, options):
    def loss(*arrays):
        outputs = attend(*arrays, segment_ids, **options).astype("float32")
        return jnp.sum(outputs * weights), outputs

    gradients, outputs = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*arrays)
    return [np.asarray(x, "float32") for x in (outputs, *gradients)]


CASES = [
    (2, 1, 64, {"scale": 0.125}),
    (1, 3, 128, {"scale": 0.07, "sliding_window": 100}),
    (1, 2, 256, {"scale": 0.06, "soft_cap": 5.0}),
    (2, 2, 96, {"scale": 0.1, "sliding_window": 7, "soft_cap": 20.0}),
]


@pytest.mark.parametrize(("heads", "group", "head_dim", "options"), CASES)
def test_outputs_and_gradients_are_those_of_all_scores(heads, group, head_dim, options):
    arrays = make_arrays(heads, group, head_dim)
    expected = outputs_and_gradients(attend_with_all_scores, *arrays, options)
    found = outputs_and_gradients(splash_attend, *arrays, options)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_bfloat16_differs_by_its_rounding():
    arrays, weights, segment_ids = make_arrays(1, 2, 64, "bfloat16")
    options = {"scale": 0.125}
    exact = [x.astype("float32") for x in arrays]
    expected = outputs_and_gradients(
        attend_with_all_scores, exact, weights, segment_ids, options
    )
    found = outputs_and_gradients(splash_attend, arrays, weights, segment_ids, options)
    for one, other in zip(found, expected, strict=True):
        # Five roundings of 2**-9, of sums of up to some hundred numbers.
        assert np.abs(one - other).max() < 0.02 * np.abs(other).max()


def packed_rows():
    """Two rows with several sequences each, and padding at their ends."""
    rng = np.random.default_rng(1)
    lengths = [[50, 30, 40], [100, 20]]
    rows = {"token_ids": rng.integers(3, 250, (2, 128)).astype("int32")}
    for name in ("padding_mask", "segment_ids", "positions"):
        rows[name] = np.zeros((2, 128), "int32")
    for row, sizes in enumerate(lengths):
        start = 0
        for i, size in enumerate(sizes, 1):
            place = slice(start, start + size)
            rows["padding_mask"][row, place] = 1
            rows["segment_ids"][row, place] = i
            rows["positions"][row, place] = np.arange(size)
            start += size
    return rows


def hidden_and_gradients(model, rows, gradient_checkpointing):
    variables = model.trainable_variables
    mask = rows["padding_mask"][..., None]

    @jax.jit
    def run(values):
        def loss(values):
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                hidden = hidden_states(
                    model, rows, gradient_checkpointing=gradient_checkpointing
                )
            return jnp.sum(jnp.sin(hidden) * mask), hidden * mask

        return jax.grad(loss, has_aux=True)(values)

    gradients, hidden = run([v.value for v in variables])
    return [np.asarray(x) for x in (hidden, *gradients)]


@pytest.mark.parametrize("family", ["gpt_j", "llama", "qwen3", "gemma2", "mistral"])
def test_packed_rows_of_a_model_are_those_of_all_scores(family, monkeypatch):
    model = testing.tiny_causal_lm(family)
    rows = packed_rows()
    expected = hidden_and_gradients(model, rows, False)
    monkeypatch.setattr(attention_modes, "splash_applies", lambda length: True)
    found = hidden_and_gradients(model, rows, family == "llama")
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=2e-5 * scale)


def test_every_layout_of_a_mesh_computes_the_same():
    found = run_on_eight_devices("models_splash_on_a_mesh")
    assert found.pop("devices") == 8
    assert len(found) == 7
    for case, difference in found.items():
        assert difference < 2e-5, case


def test_other_platforms_and_lengths_attend_with_all_scores():
    assert not splash_applies(1024)  # no TPU here
