"""Self-attention of GPT-J: rotary positions in interleaved pairs, no biases."""

import math

import keras
from keras import ops


def rotary_sin_cos(positions, rotary_dim, max_wavelength=10000):
    """Sines and cosines of the rotation angles at `positions`.

    Args:
        positions: int tensor of shape `(batch, length)`.
        rotary_dim: int. Even number of dimensions that are rotated.
        max_wavelength: int. Longest wavelength. Defaults to `10000`.

    Returns:
        Two float32 tensors `(batch, 1, length, rotary_dim // 2)`, the axis of
        one stands for the heads.
    """
    exponents = ops.arange(0, rotary_dim, 2, dtype="float32") / rotary_dim
    frequencies = ops.power(float(max_wavelength), -exponents)
    angles = ops.cast(positions, "float32")[:, None, :, None] * frequencies
    return ops.sin(angles), ops.cos(angles)


def rotate_interleaved(x, sin, cos):
    """Rotate the pairs `(0, 1), (2, 3), ...` of the last axis of `x`.

    GPT-J's form of RoPE. Dimensions past the rotated ones are left as they
    are. (The usual form pairs dimension `i` with `i + rotary_dim // 2`.)

    Args:
        x: float tensor of shape `(batch, num_heads, length, head_dim)`.
        sin: float tensor `(batch or 1, 1, length, rotary_dim // 2)`.
        cos: like `sin`.

    Returns:
        A tensor of the shape and dtype of `x`.

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


def _write_to_cache(cache, update, index):
    """Write `update` `(B, H, Q, D)` into `cache` `(B, H, T, D)` at `index`.

    `index` is a scalar, or a vector `(B,)` with a start for each row.
    """
    update = ops.cast(update, cache.dtype)
    if len(ops.shape(index)) == 0:
        return ops.slice_update(cache, (0, 0, index, 0), update)
    return ops.vectorized_map(
        lambda row: ops.slice_update(row[0], (0, row[2], 0), row[1]),
        (cache, update, index),
    )


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJAttention(keras.layers.Layer):
    """Multi-head self-attention with GPT-J's rotary position embedding.

    Args:
        num_heads: int. Number of attention heads.
        head_dim: int. Size of one head.
        rotary_dim: int. Leading dimensions of a head that are rotated.
        rotary_max_wavelength: int. Defaults to `10000`.
        kernel_stddev: float. Standard deviation of the initial query, key and
            value kernels. Defaults to `0.02`.
        output_stddev: float. The same for the output kernel. Defaults to
            `0.02`.

    Call arguments:
        hidden_states: float tensor `(batch, length, hidden_dim)`.
        attention_mask: bool tensor `(batch, length, key_length)`, true where
            a query may look.
        positions: int tensor `(batch or 1, length)`. Rotary positions.
        cache: `None`, or a tuple `(key, value)` of float tensors
            `(batch, num_heads, cache_length, head_dim)`.
        cache_update_index: int scalar, or int tensor `(batch,)`. Where the
            keys and values of the inputs go in the cache.

    Returns:
        `(outputs, cache)`: a tensor `(batch, length, hidden_dim)`, and the
        updated cache or `None`.
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
            raise ValueError(
                "Invalid value for argument `rotary_dim`. Expected an even "
                "number between 2 and the size of a head, "
                f"head_dim={head_dim}. Received: rotary_dim={rotary_dim}."
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
            "nhd,hdm->nm",
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
            key = _write_to_cache(cache[0], key, cache_update_index)
            value = _write_to_cache(cache[1], value, cache_update_index)
            cache = (key, value)

        # Scores and softmax in float32, as GPT-J was trained.
        scores = ops.einsum(
            "bhqd,bhkd->bhqk",
            ops.cast(query, "float32") / math.sqrt(self.head_dim),
            ops.cast(key, "float32"),
        )
        scores = scores + ops.where(attention_mask, 0.0, -1e9)[:, None, :, :]
        # The softmax's division comes last, on (query, head_dim) instead of
        # (query, key): the gradient is then 1.5 times faster on CPU.
        top = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
        weights = ops.exp(scores - top)
        total = ops.sum(weights, axis=-1, keepdims=True)
        outputs = ops.einsum("bhqk,bhkd->bhqd", ops.cast(weights, value.dtype), value)
        outputs = ops.transpose(outputs / ops.cast(total, outputs.dtype), (0, 2, 1, 3))
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
