import jax.numpy as jnp
import keras
import numpy as np
import pytest
from keras import ops

from star_keras.models import GPTJAttention
from star_keras.models.gpt_j.gpt_j_attention import (
    rotary_sin_cos,
    rotate_interleaved,
)


def rotate_as_complex_numbers(x, positions, rotary_dim, max_wavelength=10000):
    """Each pair `(2i, 2i + 1)` is a complex number, multiplied by a phase.

    `x` has the shape `(batch, num_heads, length, head_dim)`.
    """
    phases = positions[:, None] * max_wavelength ** (
        -np.arange(0, rotary_dim, 2) / rotary_dim
    )
    pairs = x[..., 0:rotary_dim:2] + 1j * x[..., 1:rotary_dim:2]
    pairs = pairs * np.exp(1j * phases)
    result = np.array(x)
    result[..., 0:rotary_dim:2] = pairs.real
    result[..., 1:rotary_dim:2] = pairs.imag
    return result


def rotate(x, positions, rotary_dim):
    sin, cos = rotary_sin_cos(np.asarray(positions)[None], rotary_dim)
    return ops.convert_to_numpy(rotate_interleaved(jnp.asarray(x), sin, cos))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("rotary_dim", (2, 6, 8))
def test_rotation_multiplies_interleaved_pairs_by_a_phase(rotary_dim):
    x = normal(2, 3, 5, 8)
    positions = np.array([0, 1, 2, 40, 2047])
    expected = rotate_as_complex_numbers(x, positions, rotary_dim)
    np.testing.assert_allclose(rotate(x, positions, rotary_dim), expected, atol=1e-3)
    # Large angles lose digits in float32; small ones do not.
    np.testing.assert_allclose(
        rotate(x, positions, rotary_dim)[:, :, :3], expected[:, :, :3], atol=1e-6
    )


def test_rotation_leaves_position_zero_and_the_other_dimensions_alone():
    x = normal(1, 2, 4, 8)
    rotated = rotate(x, [0, 0, 5, 6], rotary_dim=4)
    np.testing.assert_array_equal(rotated[:, :, :2], x[:, :, :2])
    np.testing.assert_array_equal(rotated[..., 4:], x[..., 4:])
    assert not np.allclose(rotated[:, :, 2:, :4], x[:, :, 2:, :4], atol=1e-2)


def test_rotated_products_depend_on_the_distance_only():
    query, key = normal(1, 1, 1, 8), normal(1, 1, 1, 8, seed=1)

    def product(query_position, key_position):
        return np.sum(
            rotate(query, [query_position], 8) * rotate(key, [key_position], 8)
        )

    np.testing.assert_allclose(product(7, 3), product(54, 50), rtol=1e-4)
    assert abs(product(7, 3) - product(7, 4)) > 1e-2


def test_rotation_keeps_the_dtype():
    sin, cos = rotary_sin_cos(np.arange(3)[None], 4)
    assert sin.shape == cos.shape == (1, 1, 3, 2)
    assert sin.dtype == cos.dtype == "float32"
    x = jnp.ones((1, 2, 3, 8), "bfloat16")
    assert rotate_interleaved(x, sin, cos).dtype == "bfloat16"


def reference_attention(layer, x, mask):
    """One query at a time, in float64."""
    query, key, value = (
        np.einsum("bnm,mhd->bhnd", x, np.asarray(part.kernel.value, "float64"))
        for part in (layer.query, layer.key, layer.value)
    )
    positions = np.arange(x.shape[1])
    query = rotate_as_complex_numbers(query, positions, layer.rotary_dim)
    key = rotate_as_complex_numbers(key, positions, layer.rotary_dim)
    outputs = np.zeros_like(query)
    for b, h, q in np.ndindex(query.shape[:3]):
        visible = np.flatnonzero(mask[b, : q + 1])
        scores = key[b, h, visible] @ query[b, h, q] / np.sqrt(layer.head_dim)
        weights = np.exp(scores) / np.exp(scores).sum()
        outputs[b, h, q] = weights @ value[b, h, visible]
    kernel = np.asarray(layer.attention_output.kernel.value, "float64")
    return np.einsum("bhnd,hdm->bnm", outputs, kernel)


def test_attention_equals_a_plain_loop():
    keras.utils.set_random_seed(0)
    layer = GPTJAttention(
        num_heads=3, head_dim=8, rotary_dim=4, kernel_stddev=0.5, output_stddev=0.5
    )
    x, mask = normal(2, 6, 20), np.ones((2, 6), "int32")
    mask[1, 3] = 0
    outputs = layer(x, mask)
    expected = reference_attention(layer, x.astype("float64"), mask)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


def test_scores_of_any_size_give_finite_outputs():
    keras.utils.set_random_seed(0)
    layer = GPTJAttention(num_heads=2, head_dim=4, rotary_dim=4, kernel_stddev=0.5)
    outputs = layer(1e4 * normal(1, 5, 8))
    assert np.isfinite(outputs).all()


def test_projections_have_no_biases():
    layer = GPTJAttention(num_heads=2, head_dim=4, rotary_dim=4)
    layer.build((None, None, 8))
    shapes = {
        variable.path.split("/", 1)[1]: variable.shape for variable in layer.weights
    }
    assert shapes == {
        "query/kernel": (8, 2, 4),
        "key/kernel": (8, 2, 4),
        "value/kernel": (8, 2, 4),
        "attention_output/kernel": (2, 4, 8),
    }


def test_config_round_trip():
    layer = GPTJAttention(
        num_heads=2,
        head_dim=8,
        rotary_dim=6,
        rotary_max_wavelength=500,
        kernel_stddev=0.1,
        output_stddev=0.3,
        dtype="mixed_bfloat16",
        name="attention",
    )
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(copy) is GPTJAttention
    assert copy.get_config() == layer.get_config()


@pytest.mark.parametrize("rotary_dim", (0, 3, 10, -2))
def test_rotary_dim_must_be_even_and_fit_in_a_head(rotary_dim):
    with pytest.raises(ValueError, match=rf"argument `rotary_dim`.*={rotary_dim}\."):
        GPTJAttention(num_heads=2, head_dim=8, rotary_dim=rotary_dim)
