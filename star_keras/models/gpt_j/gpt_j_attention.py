"""Self-attention of GPT-J: rotary positions in interleaved pairs, no biases."""

import math

import jax.numpy as jnp
import keras
from keras import ops

from star_keras.models.attention_modes import PackedAttention
from star_keras.models.attention_scope import (
    attend_in_force,
    attention_scope,
    positions_in_force,
    rows_in_force,
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
        padding_mask: optional int or bool tensor `(batch, length)`, 1 for real
            tokens. Not used within an `attention_scope`, whose function decides
            what a token sees, and where it stands.

    Returns:
        float tensor `(batch, length, hidden_dim)`.

    Raises:
        ValueError: if `rotary_dim` is odd, below 2, or above `head_dim`.

    Example:
    ```python
    attention = GPTJAttention(num_heads=2, head_dim=8, rotary_dim=4)
    attention(np.ones((3, 5, 16))).shape  # (3, 5, 16)
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

    def call(self, hidden_states, padding_mask=None):
        if positions_in_force() is None:
            rows = ops.shape(hidden_states)[:2]
            positions = jnp.broadcast_to(jnp.arange(rows[1], dtype="int32"), rows)
            attention = PackedAttention(rows, padding_mask=padding_mask)
            with attention_scope(attention, positions):
                return self.call(hidden_states)
        rows = rows_in_force()
        # Projections see one axis of tokens: a kernel's gradient that sums
        # over two axes is 2.5 times slower in XLA on CPU.
        tokens = ops.reshape(hidden_states, (-1, ops.shape(hidden_states)[-1]))

        def heads_first(x):  # to (batch, num_heads, length, head_dim)
            x = ops.reshape(x, (*rows, self.num_heads, self.head_dim))
            return ops.transpose(x, (0, 2, 1, 3))

        sin, cos = rotary_sin_cos(
            ops.reshape(positions_in_force(), rows),
            self.rotary_dim,
            self.rotary_max_wavelength,
        )
        outputs = attend_in_force(
            rotate_interleaved(heads_first(self.query(tokens)), sin, cos),
            rotate_interleaved(heads_first(self.key(tokens)), sin, cos),
            heads_first(self.value(tokens)),
            1 / math.sqrt(self.head_dim),
        )
        outputs = ops.transpose(outputs, (0, 2, 1, 3))
        outputs = self.attention_output(
            ops.reshape(outputs, (-1, self.num_heads, self.head_dim))
        )
        return ops.reshape(outputs, ops.shape(hidden_states))

    def compute_output_spec(self, hidden_states, padding_mask=None):
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

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
