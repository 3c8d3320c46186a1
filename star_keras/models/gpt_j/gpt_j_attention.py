"""Self-attention of GPT-J: rotary positions in interleaved pairs, no biases."""

import jax
import keras
from keras import ops

from star_keras.models.attention import (
    attend,
    attend_causally,
    attend_one_query,
    attend_to_prefix,
    merge_attention,
    write_to_cache,
)
from star_keras.utils.errors import invalid


def rotary_sin_cos(positions, rotary_dim, max_wavelength=10000):
    """Sines and cosines of the rotation angles of positions.

    Args:
        positions: int tensor `(batch, length)`.
        rotary_dim: int. Number of rotated dimensions, even.
        max_wavelength: int. Longest wavelength. Defaults to `10000`.

    Returns:
        `(sin, cos)`, float32 tensors `(batch, 1, length, rotary_dim // 2)`. The
        axis of size 1 stands for the heads.
    """
    exponents = ops.arange(0, rotary_dim, 2, dtype="float32") / rotary_dim
    frequencies = ops.power(float(max_wavelength), -exponents)
    angles = ops.cast(positions, "float32")[:, None, :, None] * frequencies
    return ops.sin(angles), ops.cos(angles)


def rotate_interleaved(x, sin, cos):
    """Rotate the pairs `(0, 1), (2, 3), ...` of the last axis of `x`.

    This is GPT-J's form of RoPE. The usual form pairs dimension `i` with
    `i + rotary_dim // 2`. Dimensions from `rotary_dim` on stay unchanged.

    Args:
        x: float tensor `(batch, num_heads, length, head_dim)`.
        sin: float32 tensor `(batch or 1, 1, length, rotary_dim // 2)`.
        cos: float32 tensor of the same shape.

    Returns:
        A tensor of the shape and dtype of `x`. The rotation itself is computed in
        float32.

    Reference:
        [RoFormer](https://arxiv.org/abs/2104.09864), equation 34.
    """
    rotary_dim = 2 * sin.shape[-1]
    rotated, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    rotated = ops.cast(rotated, "float32")
    even, odd = rotated[..., 0::2], rotated[..., 1::2]
    rotated = ops.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    rotated = ops.reshape(rotated, (*ops.shape(x)[:-1], rotary_dim))
    return ops.concatenate([ops.cast(rotated, x.dtype), rest], axis=-1)


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJAttention(keras.layers.Layer):
    """Multi-head self-attention with GPT-J's rotary position embedding.

    The four projections have no biases.

    Args:
        num_heads: int. Number of attention heads.
        head_dim: int. Size of one head.
        rotary_dim: int. Number of leading dimensions of a head to rotate. Even.
        rotary_max_wavelength: int. Longest wavelength of the rotation. Defaults
            to `10000`.
        kernel_stddev: float. Standard deviation of the initial query, key and
            value kernels. Defaults to `0.02`.
        output_stddev: float. Standard deviation of the initial output kernel.
            Defaults to `0.02`.

    Call arguments:
        hidden_states: float tensor `(batch, length, hidden_dim)`.
        attention_mask: bool tensor `(batch or 1, length, key_length)`. True where
            a query sees a key. `key_length` is `cache_length` with a cache, else
            `length`. Without a cache the mask must be causal.
        positions: int tensor `(batch or 1, length)`. Rotary positions.
        cache: optional tuple `(key, value)` of float tensors
            `(batch, num_heads, cache_length, head_dim)`.
        cache_update_index: int scalar, or int tensor `(batch,)` with an index for
            each row. Place in the cache of the first of the inputs. Required with
            a cache.
        prefix_cache: optional tuple `(key, value)` of float tensors
            `(1, num_heads, prefix_cache_length, head_dim)`. Every query of every
            row sees this prefix in addition to its own row.
        prefix_length: int scalar. Number of tokens in `prefix_cache`; its later
            places are padding. Required with `prefix_cache`.

    Returns:
        `(outputs, cache)`: a float tensor `(batch, length, hidden_dim)`, and the
        updated cache, or `None` without a cache.

    Raises:
        ValueError: if `rotary_dim` is odd, below 2, or above `head_dim`.

    Example:
    ```python
    attention = GPTJAttention(num_heads=2, head_dim=8, rotary_dim=4)
    causal_mask = np.tril(np.ones((1, 5, 5), "bool"))
    outputs, cache = attention(
        np.ones((3, 5, 16)), causal_mask, np.arange(5)[None]
    )
    outputs.shape  # (3, 5, 16)
    cache  # None
    ```

    Reference:
        [RoFormer](https://arxiv.org/abs/2104.09864), for the rotary embedding.
    """

    def __init__(
        self,
        num_heads,
        head_dim,
        rotary_dim,
        rotary_max_wavelength=10000,
        kernel_stddev=0.02,
        output_stddev=0.02,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if rotary_dim % 2 or not 0 < rotary_dim <= head_dim:
            raise invalid(
                "rotary_dim",
                f"an even number from 2 to the size of a head, head_dim={head_dim}",
                rotary_dim,
            )
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.rotary_dim = rotary_dim
        self.rotary_max_wavelength = rotary_max_wavelength
        self.kernel_stddev = kernel_stddev
        self.output_stddev = output_stddev

    def build(self, hidden_states_shape):
        hidden_dim = hidden_states_shape[-1]

        def projection(name):
            layer = keras.layers.EinsumDense(
                "nm,mhd->nhd",
                output_shape=(self.num_heads, self.head_dim),
                kernel_initializer=keras.initializers.RandomNormal(
                    stddev=self.kernel_stddev
                ),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((None, hidden_dim))
            return layer

        self.query = projection("query")
        self.key = projection("key")
        self.value = projection("value")
        self.attention_output = keras.layers.EinsumDense(
            # einsum sums over letters in the order of the alphabet; against that
            # of the axes, XLA would transpose kernel and inputs in each call.
            "nhk,hkm->nm",
            output_shape=(hidden_dim,),
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=self.output_stddev
            ),
            dtype=self.dtype_policy,
            name="attention_output",
        )
        self.attention_output.build((None, self.num_heads, self.head_dim))
        self.built = True

    def call(
        self,
        hidden_states,
        attention_mask,
        positions,
        cache=None,
        cache_update_index=None,
        prefix_cache=None,
        prefix_length=None,
    ):
        batch, length, hidden_dim = ops.shape(hidden_states)
        # Projections see one axis of tokens: a kernel's gradient that sums
        # over two axes is 2.5 times slower in XLA on CPU.
        tokens = ops.reshape(hidden_states, (-1, hidden_dim))

        def heads_first(x):  # to (batch, num_heads, length, head_dim)
            x = ops.reshape(x, (batch, length, self.num_heads, self.head_dim))
            return ops.transpose(x, (0, 2, 1, 3))

        sin, cos = rotary_sin_cos(
            positions, self.rotary_dim, self.rotary_max_wavelength
        )
        query = rotate_interleaved(heads_first(self.query(tokens)), sin, cos)
        key = rotate_interleaved(heads_first(self.key(tokens)), sin, cos)
        value = heads_first(self.value(tokens))
        if cache is not None:
            key = write_to_cache(cache[0], key, cache_update_index)
            value = write_to_cache(cache[1], value, cache_update_index)
            cache = (key, value)

        arguments = query, key, value, attention_mask
        if cache is not None and length == 1:
            parts = jax.lax.platform_dependent(
                *arguments, tpu=attend_one_query, default=attend
            )
        elif cache is None:
            parts = jax.lax.platform_dependent(
                *arguments, cpu=attend_causally, default=attend
            )
        else:
            parts = attend(*arguments)
        if prefix_cache is not None:
            prefix_parts = attend_to_prefix(query, *prefix_cache, prefix_length)
            parts = merge_attention(parts, prefix_parts)
        outputs = ops.transpose(parts.outputs(), (0, 2, 1, 3))
        outputs = self.attention_output(
            ops.reshape(outputs, (-1, self.num_heads, self.head_dim))
        )
        return ops.reshape(outputs, ops.shape(hidden_states)), cache

    def compute_output_spec(
        self,
        hidden_states,
        attention_mask,
        positions,
        cache=None,
        cache_update_index=None,
        prefix_cache=None,
        prefix_length=None,
    ):
        return (
            keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype),
            cache,
        )

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "head_dim": self.head_dim,
                "rotary_dim": self.rotary_dim,
                "rotary_max_wavelength": self.rotary_max_wavelength,
                "kernel_stddev": self.kernel_stddev,
                "output_stddev": self.output_stddev,
            }
        )
        return config
