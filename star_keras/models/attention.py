"""Attention as pure functions: softmax in float32, causal blocks, shared prefixes.

Shapes: batch B, key-value heads H, query heads of each of them G, queries Q, keys K,
head size D. Grouped queries share their keys; no key is repeated.
"""

import itertools
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
        weighted: float array `(B, H, G, Q, D)`. Sum of the values, each times
            `exp(score - highest)`, in the dtype of the values.
        highest: float32 array `(B, H, G, Q, 1)`. Highest score of each query.
        total: float32 array `(B, H, G, Q, 1)`. Sum of `exp(score - highest)`.
    """

    weighted: jax.Array
    highest: jax.Array
    total: jax.Array

    def outputs(self):
        """The attention outputs, `(B, H, G, Q, D)` in the dtype of the values."""
        return self.weighted / ops.cast(self.total, self.weighted.dtype)


def attend(query, key, value, mask, *, scale, soft_cap=None, few_queries=False):
    """Attention of each row to its own keys and values.

    Scores and softmax are float32 in any dtype, as in the training of GPT-J.

    Args:
        query: float array `(B, H, G, Q, D)`.
        key: float array `(B, H, K, D)`.
        value: float array `(B, H, K, D)`.
        mask: bool array `(B or 1, Q, K)`. True where a query sees a key.
        scale: float. Factor of the scores.
        soft_cap: optional float. Scores become `soft_cap * tanh(score / soft_cap)`.
        few_queries: Whether XLA for CPU shall multiply the keys by the queries, and
            not the other way round. It is faster for one query of a group in float32.

    Returns:
        `AttentionParts`.

    Reference:
        [Gemma 2](https://arxiv.org/abs/2408.00118), section 2, for the soft cap.
    """
    # XLA multiplies by one axis of queries without copies.
    batch, heads, groups, length, _ = query.shape
    folded = ops.reshape(query, (batch, heads, groups * length, -1))
    if few_queries and groups > 1 and key.dtype == "float32":
        scores = _scores_of_few(folded, key, scale, soft_cap)
    else:
        scores = _scores("bhqd,bhkd->bhqk", folded, key, scale, soft_cap)
    bias = _bias(mask)[:, None]
    if groups > 1:
        bias = ops.tile(bias, (1, 1, groups, 1))
    parts = _weigh(scores + bias, value, "bhqk,bhkd->bhqd")
    shape = batch, heads, groups, length, -1
    return AttentionParts(*(ops.reshape(part, shape) for part in parts))


def attend_causally(query, key, value, mask, **options):
    """`attend` for a causal mask, with 5/8 of its work on long rows.

    Up to four blocks of at least 64 queries each see the keys up to their own end.
    More and smaller blocks are slower on CPU.

    Args:
        query: float array `(B, H, G, L, D)`.
        key: float array `(B, H, L, D)`.
        value: float array `(B, H, L, D)`.
        mask: bool array `(B or 1, L, L)`. False wherever the key comes after the
            query. Padding and other segments of a packed row may be false too.
        **options: `scale` and `soft_cap`, see `attend`.

    Returns:
        `AttentionParts`.
    """
    blocks = [
        attend(
            query[:, :, :, start:end],
            key[:, :, :end],
            value[:, :, :end],
            mask[:, start:end, :end],
            **options,
        )
        for start, end in causal_bounds(query.shape[3])
    ]
    return AttentionParts(
        *(ops.concatenate(arrays, axis=3) for arrays in zip(*blocks, strict=True))
    )


def causal_bounds(length):
    """Pairs `(start, end)` of up to four blocks of at least 64 queries each."""
    count = max(1, min(4, length // 64))
    return itertools.pairwise(length * i // count for i in range(count + 1))


def attend_one_query(query, key, value, mask, **options):
    """`attend` for one query a row, made for the matrix unit of a TPU.

    XLA leaves the product of a vector and a matrix to the vector unit of a TPU.
    By the compiler's estimate that takes up to five times as long. The queries of a
    group are therefore filled up with zeros to a multiple of eight, the sublanes.

    Args:
        query: float array `(B, H, G, 1, D)`.
        key: float array `(B, H, K, D)`.
        value: float array `(B, H, K, D)`.
        mask: bool array `(B or 1, 1, K)`.
        **options: `scale` and `soft_cap`, see `attend`.

    Returns:
        `AttentionParts`.
    """
    groups = query.shape[2]
    # The group's queries on the axis of queries: they share the mask.
    query = jnp.swapaxes(query, 2, 3)
    query = jnp.pad(query, ((0, 0),) * 3 + ((0, -groups % 8), (0, 0)))
    mask = jnp.broadcast_to(mask, (mask.shape[0], query.shape[3], mask.shape[2]))
    parts = attend(query, key, value, mask, **options)
    return AttentionParts(*(jnp.swapaxes(x[:, :, :, :groups], 2, 3) for x in parts))


def attend_to_prefix(query, key, value, mask, *, scale, soft_cap=None):
    """Attention of all rows to one shared prefix: one matrix product a head.

    Args:
        query: float array `(B, H, G, Q, D)`.
        key: float array `(1, H, K, D)`.
        value: float array `(1, H, K, D)`.
        mask: bool array `(B or 1, Q or 1, K)`. True where a query sees a key.
        scale: float. Factor of the scores.
        soft_cap: optional float, see `attend`.

    Returns:
        `AttentionParts`.

    Reference:
        [Hydragen](https://arxiv.org/abs/2402.05099), section 3.
    """
    scores = _scores("bhgqd,hkd->hbgqk", query, key[0], scale, soft_cap)
    scores = scores + _bias(mask)[None, :, None, :, :]
    parts = _weigh(scores, value[0], "hbgqk,hkd->hbgqd")
    return AttentionParts(*(ops.transpose(part, (1, 0, 2, 3, 4)) for part in parts))


def merge_attention(one: AttentionParts, other: AttentionParts):
    """One softmax over the keys of two `AttentionParts` of the same queries.

    Args:
        one: The attention to some keys.
        other: The attention to the other keys.

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


def _bias(mask):
    # In float32 whatever Keras's default is: no -inf, of which two have no difference.
    return jnp.where(mask, jnp.float32(0), jnp.float32(-1e9))


def _scores(equation, query, key, scale, soft_cap):
    query = ops.cast(query, "float32") * scale
    scores = ops.einsum(equation, query, ops.cast(key, "float32"))
    return scores if soft_cap is None else soft_cap * ops.tanh(scores / soft_cap)


def _scores_of_few(query, key, scale, soft_cap):
    """`_scores` of queries `(B, H, Q, D)`, as `(B, H, Q, K)`."""
    count = query.shape[2]
    query = jnp.pad(query, ((0, 0), (0, 0), (0, -count % 8), (0, 0)))
    query = jnp.swapaxes(query, 2, 3)
    scores = _scores("bhdq,bhkd->bhkq", query, key, scale, soft_cap)
    return jnp.swapaxes(scores[..., :count], 2, 3)


def _weigh(scores, value, equation):
    """Values weighted by `exp(scores)`, see `AttentionParts`."""
    highest = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - highest)
    total = ops.sum(weights, axis=-1, keepdims=True)
    weighted = ops.einsum(equation, ops.cast(weights, value.dtype), value)
    return AttentionParts(weighted=weighted, highest=highest, total=total)
