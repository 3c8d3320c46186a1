"""Attention as pure functions: softmax in float32, causal blocks, shared prefixes.

Shapes: batch B, heads H, queries Q, keys K, head size D.
"""

import itertools
import math
import typing

import jax
import jax.numpy as jnp
from keras import ops


class AttentionParts(typing.NamedTuple):
    """Attention with the division of its softmax left out.

    The division comes last, on `(Q, D)` instead of `(Q, K)` numbers. Its gradient
    is 1.5 times faster on CPU this way. Parts over different keys can be merged
    before the division, see `merge_attention`.

    Attributes:
        weighted: float array `(B, H, Q, D)`. Sum of the values, each times
            `exp(score - highest)`, in the dtype of the values.
        highest: float32 array `(B, H, Q, 1)`. Highest score of each query.
        total: float32 array `(B, H, Q, 1)`. Sum of `exp(score - highest)`.
    """

    weighted: jax.Array
    highest: jax.Array
    total: jax.Array

    def outputs(self):
        """The attention outputs, `(B, H, Q, D)` in the dtype of the values."""
        return self.weighted / ops.cast(self.total, self.weighted.dtype)


def attend(query, key, value, mask):
    """Attention of each row to its own keys and values.

    Scores and softmax are float32 in any dtype, as in the training of GPT-J.

    Args:
        query: float array `(B, H, Q, D)`.
        key: float array `(B, H, K, D)`.
        value: float array `(B, H, K, D)`.
        mask: bool array `(B or 1, Q, K)`. True where a query sees a key.

    Returns:
        `AttentionParts`.
    """
    scores = ops.einsum(
        "bhqd,bhkd->bhqk",
        ops.cast(query, "float32") / math.sqrt(ops.shape(query)[-1]),
        ops.cast(key, "float32"),
    )
    scores = scores + ops.where(mask, 0.0, -1e9)[:, None, :, :]
    return _weigh(scores, value, "bhqk,bhkd->bhqd")


def attend_causally(query, key, value, mask):
    """`attend` for a causal mask, with 5/8 of its work on long rows.

    Up to four blocks of at least 64 queries each see the keys up to their own end.
    More and smaller blocks are slower on CPU.

    Args:
        query: float array `(B, H, L, D)`.
        key: float array `(B, H, L, D)`.
        value: float array `(B, H, L, D)`.
        mask: bool array `(B or 1, L, L)`. False wherever the key comes after the
            query. Padding and other segments of a packed row may be false too.

    Returns:
        `AttentionParts`.
    """
    length = query.shape[2]
    count = max(1, min(4, length // 64))
    bounds = [length * i // count for i in range(count + 1)]
    blocks = [
        attend(
            query[:, :, start:end],
            key[:, :, :end],
            value[:, :, :end],
            mask[:, start:end, :end],
        )
        for start, end in itertools.pairwise(bounds)
    ]
    return AttentionParts(
        *(ops.concatenate(arrays, axis=2) for arrays in zip(*blocks, strict=True))
    )


def attend_one_query(query, key, value, mask):
    """`attend` for one query a row, made for the matrix unit of a TPU.

    XLA leaves the product of a vector and a matrix to the vector unit of a TPU.
    By the compiler's estimate that takes up to five times as long. The query is
    therefore repeated to fill eight sublanes.

    Args:
        query: float array `(B, H, 1, D)`.
        key: float array `(B, H, K, D)`.
        value: float array `(B, H, K, D)`.
        mask: bool array `(B or 1, 1, K)`.

    Returns:
        `AttentionParts`.
    """
    query = jnp.broadcast_to(query, (*query.shape[:2], 8, query.shape[3]))
    # Without the barrier XLA would see that the rows are the same.
    query = jax.lax.optimization_barrier(query)
    parts = attend(query, key, value, mask)
    return AttentionParts(*(part[:, :, :1] for part in parts))


def attend_to_prefix(query, key, value, length):
    """Attention of all rows to one shared prefix: one matrix product a head.

    Args:
        query: float array `(B, H, Q, D)`.
        key: float array `(1, H, K, D)`.
        value: float array `(1, H, K, D)`.
        length: int scalar. Number of tokens in the prefix. Later places of `key`
            and `value` are padding.

    Returns:
        `AttentionParts`.

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
    return AttentionParts(*(ops.transpose(part, (1, 0, 2, 3)) for part in parts))


def merge_attention(one: AttentionParts, other: AttentionParts):
    """One softmax over the keys of two `AttentionParts` of the same queries.

    Returns:
        `AttentionParts`.
    """
    highest = ops.maximum(one.highest, other.highest)
    share, other_share = (ops.exp(part.highest - highest) for part in (one, other))
    dtype = one.weighted.dtype
    weighted = one.weighted * ops.cast(share, dtype)
    weighted += other.weighted * ops.cast(other_share, dtype)
    total = one.total * share + other.total * other_share
    return AttentionParts(weighted=weighted, highest=highest, total=total)


def write_to_cache(cache, update, index):
    """Write keys or values into a cache.

    Args:
        cache: float array `(B, H, K, D)`.
        update: float array `(B, H, Q, D)`. Cast to the dtype of the cache.
        index: int scalar, or int array `(B,)` with a write index for each row.
            Place of the first of the Q updates. The places must be in the cache.

    Returns:
        The updated cache, a new array `(B, H, K, D)`.
    """
    update = ops.cast(update, cache.dtype)
    if len(ops.shape(index)) == 0:
        return ops.slice_update(cache, (0, 0, index, 0), update)
    return ops.vectorized_map(
        lambda row: ops.slice_update(row[0], (0, row[2], 0), row[1]),
        (cache, update, index),
    )


def _weigh(scores, value, equation):
    """Values weighted by `exp(scores)`, see `AttentionParts`."""
    highest = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - highest)
    total = ops.sum(weights, axis=-1, keepdims=True)
    weighted = ops.einsum(equation, ops.cast(weights, value.dtype), value)
    return AttentionParts(weighted=weighted, highest=highest, total=total)
