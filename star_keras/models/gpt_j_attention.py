"""Self-attention of GPT-J: rotary positions in interleaved pairs, no biases."""

import itertools
import math

import jax
import jax.numpy as jnp
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


def _weigh(scores, value, equation):
    """Values weighed by `exp(scores)`, with the division of softmax left out.

    Done last, on (query, head_dim) instead of (query, key), its gradient is
    1.5 times faster on CPU.

    Returns:
        `(outputs, top, total)`: the weighted sum, and with a last axis of one
        the highest score and the sum of the weights. All are over
        `exp(top)`.
    """
    top = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - top)
    total = ops.sum(weights, axis=-1, keepdims=True)
    return ops.einsum(equation, ops.cast(weights, value.dtype), value), top, total


def _attend(query, key, value, mask):
    """`_weigh` of each row's own keys and values.

    Args:
        query: float tensor `(B, H, Q, D)`.
        key, value: float tensors `(B, H, K, D)`.
        mask: bool tensor `(B, Q, K)`.
    """
    # Scores and softmax in float32, as GPT-J was trained.
    scores = ops.einsum(
        "bhqd,bhkd->bhqk",
        ops.cast(query, "float32") / math.sqrt(ops.shape(query)[-1]),
        ops.cast(key, "float32"),
    )
    scores = scores + ops.where(mask, 0.0, -1e9)[:, None, :, :]
    return _weigh(scores, value, "bhqk,bhkd->bhqd")


def _attend_causally(query, key, value, mask):
    """`_attend` of queries that see nothing behind their own place.

    They go in blocks, each with the keys up to its end, so with four blocks 5/8
    of all pairs are computed. (More and smaller ones are slower on CPU.)
    """
    length = query.shape[2]
    count = max(1, min(4, length // 64))
    bounds = [length * i // count for i in range(count + 1)]
    parts = [
        _attend(
            query[:, :, start:end],
            key[:, :, :end],
            value[:, :, :end],
            mask[:, start:end, :end],
        )
        for start, end in itertools.pairwise(bounds)
    ]
    return tuple(ops.concatenate(part, axis=2) for part in zip(*parts, strict=True))


def _attend_on_tpu(query, key, value, mask):
    """`_attend` of one query a row, which is repeated to fill eight sublanes.

    XLA leaves the product of a vector and a matrix to a TPU's vector unit,
    which takes up to five times as long as its matrix unit, by the compiler's
    estimate.
    """
    query = jnp.broadcast_to(query, (*query.shape[:2], 8, query.shape[3]))
    # Else XLA would see that the rows are the same.
    query = jax.lax.optimization_barrier(query)
    return tuple(part[:, :, :1] for part in _attend(query, key, value, mask))


def _attend_to_prefix(query, key, value, length):
    """`_weigh` of a prefix that all rows share: one matrix product a head.

    Args:
        query: float tensor `(B, H, Q, D)`.
        key, value: float tensors `(1, H, P, D)`.
        length: int scalar. Filled places of the prefix.

    Reference:
        [Hydragen](https://arxiv.org/abs/2402.05099), section 3.
    """
    scores = ops.einsum(
        "bhqd,hkd->hbqk",
        ops.cast(query, "float32") / math.sqrt(ops.shape(query)[-1]),
        ops.cast(key[0], "float32"),
    )
    filled = ops.arange(ops.shape(key)[2], dtype="int32") < length
    scores = scores + ops.where(filled, 0.0, -1e9)
    parts = _weigh(scores, value[0], "hbqk,hkd->hbqd")
    return [ops.transpose(part, (1, 0, 2, 3)) for part in parts]


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
            a query may look; without a cache never behind its own place.
        positions: int tensor `(batch or 1, length)`. Rotary positions.
        cache: `None`, or a tuple `(key, value)` of float tensors
            `(batch, num_heads, cache_length, head_dim)`.
        cache_update_index: int scalar, or int tensor `(batch,)`. Where the
            keys and values of the inputs go in the cache.
        prefix_cache: `None`, or a tuple `(key, value)` of float tensors
            `(1, num_heads, prefix_cache_length, head_dim)` that every query
            of every row sees besides its own row.
        prefix_length: int scalar. Places of `prefix_cache` that are filled.

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
            key = _write_to_cache(cache[0], key, cache_update_index)
            value = _write_to_cache(cache[1], value, cache_update_index)
            cache = (key, value)

        arguments = query, key, value, attention_mask
        if cache is not None and length == 1:
            parts = jax.lax.platform_dependent(
                *arguments, tpu=_attend_on_tpu, default=_attend
            )
        elif cache is None:
            parts = jax.lax.platform_dependent(
                *arguments, cpu=_attend_causally, default=_attend
            )
        else:
            parts = _attend(*arguments)
        outputs, top, total = parts
        if prefix_cache is not None:
            prefix_outputs, prefix_top, prefix_total = _attend_to_prefix(
                query, *prefix_cache, prefix_length
            )
            # Two softmaxes become one by the logarithms of their sums.
            highest = ops.maximum(top, prefix_top)
            share, prefix_share = ops.exp(top - highest), ops.exp(prefix_top - highest)
            outputs = outputs * ops.cast(share, outputs.dtype)
            outputs += prefix_outputs * ops.cast(prefix_share, outputs.dtype)
            total = total * share + prefix_total * prefix_share
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
