import jax
import jax.numpy as jnp
import numpy as np
import pytest

from star_keras.models.attention_in_blocks import attend_rows_in_blocks
from star_keras.models.attention_modes import CachedAttention, PackedAttention
from tests.conftest import run_on_eight_devices
from tests.models.attention_kernels import (
    attend_with_all_scores,
    make_arrays,
    outputs_and_gradients,
)

LENGTH = 1100  # in blocks, which do not divide it


def assert_close(found, expected):
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("heads", "group", "options"),
    (
        (1, 1, {}),
        (2, 1, {"soft_cap": 2.0}),
        (1, 2, {"sliding_window": 100}),
        (1, 2, {"sliding_window": 700, "soft_cap": 2.0}),
    ),
)
def test_blocks_have_outputs_and_gradients_of_all_scores(heads, group, options):
    arrays = make_arrays(heads, group, 8, length=LENGTH)
    options = {"scale": 0.4, **options}
    expected = outputs_and_gradients(attend_with_all_scores, *arrays, options)
    found = outputs_and_gradients(attend_rows_in_blocks, *arrays, options)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def test_no_token_of_a_block_sees_padding():
    arrays, _, segment_ids = make_arrays(1, 1, 8, length=LENGTH)
    padding_mask = np.arange(LENGTH) % 5 != 2
    attention = PackedAttention((2, LENGTH), segment_ids, np.stack(2 * [padding_mask]))
    found, _ = attention.attend(None, *arrays, scale=0.4)
    expected = attend_with_all_scores(
        *(x[..., padding_mask, :] for x in arrays),
        segment_ids[:, padding_mask],
        scale=0.4,
    )
    assert_close(found[..., padding_mask, :], expected)


def test_every_layout_of_a_mesh_computes_the_same():
    found = run_on_eight_devices("models_kernel_on_a_mesh", "blocks")
    assert found.pop("devices") == 8
    assert len(found) == 7
    for case, difference in found.items():
        assert difference < 2e-5, case


@pytest.mark.parametrize("sliding_window", (None, 300))
def test_prefill_in_blocks_is_that_of_shorter_pieces(sliding_window):
    (query, key, value), _, _ = make_arrays(1, 2, 8, length=LENGTH)
    prefix = key[:1, :, :40] + 1, value[:1, :, :40] + 1
    # The second row begins at a later place.
    positions = 30 + np.arange(LENGTH) + np.array([[0], [20]])
    places = 30 + np.arange(LENGTH + 20)[None]

    def prefill(cache, start, end):
        part = slice(start, end)
        attention = CachedAttention(
            positions[:, part], places, positions[:, start] - 30, prefix_length=30
        )
        options = {"sliding_window": sliding_window, "scale": 0.4}
        rows = query[:, :, :, part], key[:, :, part], value[:, :, part]
        return attention.attend(cache + prefix, *rows, **options)

    empty = 2 * (jnp.zeros((2, 1, LENGTH + 20, 8)),)
    found, cache = prefill(empty, 0, LENGTH)
    first, half = prefill(empty, 0, 600)
    second, whole = prefill(half, 600, LENGTH)
    assert_close(found, jnp.concatenate([first, second], axis=3))
    for one, other in zip(cache, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def gradient_of_rows(length):
    shapes = [(1, 1, 1, length, 8)] + 2 * [(1, 1, length, 8)]
    arrays = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]

    def loss(*arrays):
        attention = PackedAttention((1, length))
        return attention.attend(None, *arrays, scale=0.4)[0].sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arrays)


def test_memory_of_a_long_row_grows_with_its_length():
    def memory(length):
        compiled = gradient_of_rows(length).lower().compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(4096) < 2.5 * memory(2048)


@pytest.mark.parametrize(("length", "loops"), ((1024, False), (1025, True)))
def test_rows_of_up_to_1024_tokens_have_no_loop(length, loops):
    program = str(gradient_of_rows(length).jaxpr)
    assert (" scan[" in program or " while[" in program) == loops
