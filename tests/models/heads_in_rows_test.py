import types

import jax
import keras
import numpy as np
import pytest

from star_keras import planning
from star_keras.distribution import model_parallel
from star_keras.models import heads_in_rows
from star_keras.models.attention import attend
from star_keras.models.forward import build_cache
from star_keras.models.heads_in_rows import (
    heads_in_a_row,
    join_heads,
    separate_heads,
    split_heads,
    widen_queries,
)
from star_keras.testing import tiny_causal_lm


@pytest.mark.parametrize(("heads", "count"), [(4, 1), (4, 2), (4, 4), (6, 3)])
@pytest.mark.parametrize("queries", (1, 5))
def test_joined_heads_attend_like_heads_apart(heads, count, queries):
    generator = np.random.default_rng(0)
    query = generator.normal(size=(2, heads, 3, queries, 8)).astype("float32")
    key, value = generator.normal(size=(2, 2, heads, 9, 8)).astype("float32")
    mask = np.arange(9)[None, None] < 4 + np.arange(queries)[None, :, None]
    options = {"scale": 0.3, "soft_cap": 2.0}
    expected = attend(query, key, value, mask, **options).outputs()
    joined = join_heads(key, count), join_heads(value, count)
    assert joined[0].shape == (2, heads // count, 9, 8 * count)
    np.testing.assert_array_equal(separate_heads(joined[0], count), key)
    parts = attend(widen_queries(query, count), *joined, mask, **options)
    found = split_heads(parts.outputs(), count)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("heads", "head_dim", "count"),
    [(8, 64, 2), (8, 32, 4), (8, 128, 1), (8, 256, 1), (9, 64, 1), (2, 32, 1)]
    + [(8, 80, 1), (8, 96, 1)],
)
def test_heads_fill_a_row_of_a_tpu_alone(monkeypatch, heads, head_dim, count):
    assert heads_in_a_row(heads, head_dim) == 1  # on CPU
    tpu = types.SimpleNamespace(platform="tpu")
    monkeypatch.setattr(heads_in_rows, "first_device", lambda: tpu)
    assert heads_in_a_row(heads, head_dim) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "shape"),
    [
        ("batch:8,model:1", (16, 2, 32, 128)),
        ("batch:4,model:2", (16, 2, 32, 128)),
        # Two rows of heads do not divide by four devices.
        ("batch:2,model:4", (16, 4, 32, 64)),
    ],
)
def test_caches_of_tpus_have_rows_that_divide_by_the_devices(mesh, shape):
    pytest.importorskip("libtpu")
    model = tiny_causal_lm(
        "llama", hidden_dim=256, num_query_heads=4, num_key_value_heads=4
    )
    devices = planning.tpu_devices("v5e-8")
    keras.distribution.set_distribution(model_parallel(mesh, devices=devices))
    try:
        cache = jax.eval_shape(lambda: build_cache(model, 16, 32))
    finally:
        keras.distribution.set_distribution(None)
    assert {x.shape for x in jax.tree.leaves(cache)} == {shape}
