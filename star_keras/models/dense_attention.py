"""Attention without a kernel: masks, and blocks of queries where rows are long.

Letters of shapes are those of `star_keras.models.attention`.
"""

import functools

import jax
import jax.numpy as jnp

from star_keras.models.attention import attend, attend_causally, causal_bounds

_MOST_QUERIES = 1024
# On CPU 64 and 256 are no faster.
_BLOCK = 128


def queries_at_once(length):
    """Number of queries of a row of `length` tokens whose scores exist at a time."""
    return length if length <= _MOST_QUERIES else _BLOCK


def causal_mask(positions, key_positions, sliding_window=None):
    """Which keys queries see by their positions.

    Args:
        positions: int array `(B or 1, Q)`.
        key_positions: int array `(B or 1, K)`. No two differ by `K` or more.
        sliding_window: optional int. A query sees this many tokens, itself included.

    Returns:
        bool array `(B or 1, Q, K)`.
    """
    queries, keys = positions[:, :, None], key_positions[:, None, :]
    mask = keys <= queries
    if sliding_window is not None and sliding_window < keys.shape[2]:
        mask = mask & (keys > queries - sliding_window)
    return mask


def attend_in_rows(
    query,
    key,
    value,
    segment_ids=None,
    padding_mask=None,
    *,
    sliding_window=None,
    **options,
):
    """Causal attention within rows.

    Rows of more than 1,024 tokens are computed in blocks of queries: memory grows
    with their length, not with its square. The backward pass computes the scores of a
    block again.

    Args:
        query: float array `(B, H, G, L, D)`.
        key: float array `(B, H, L, D)`.
        value: float array `(B, H, L, D)`.
        segment_ids: optional int array `(B, L)`. A token sees only tokens of its own
            segment.
        padding_mask: optional int or bool array `(B, L)`. No token sees the tokens
            where it is false.
        sliding_window: optional int. A query sees this many tokens, itself included.
        **options: `scale` and `soft_cap`, see `attend`.

    Returns:
        float array of the shape of `query`, in the dtype of the values.
    """
    length = query.shape[3]
    places = jnp.arange(length, dtype="int32")[None]

    def mask(keys, positions, ids):
        mask = causal_mask(positions, places[:, keys], sliding_window)
        if ids is not None:
            mask = mask & (ids[:, :, None] == segment_ids[:, None, keys])
        if padding_mask is not None:
            mask = mask & padding_mask.astype("bool")[:, None, keys]
        return mask

    def attend_to(keys, query, *by_query):
        seen = key[:, :, keys], value[:, :, keys], mask(keys, *by_query)
        return attend(query, *seen, **options)

    by_query = places, segment_ids
    if queries_at_once(length) == length:
        return jax.lax.platform_dependent(
            query,
            key,
            value,
            mask(slice(None), *by_query),
            cpu=lambda *x: attend_causally(*x, **options),
            default=lambda *x: attend(*x, **options),
        ).outputs()
    outputs = []
    for start, end in causal_bounds(length):
        first = max(0, start + 1 - (sliding_window or end))
        part = slice(start, end)
        some = jax.tree.map(lambda x, part=part: x[:, part], by_query)
        attend_some = functools.partial(attend_to, slice(first, end))
        outputs.append(_map_blocks(attend_some, query[:, :, :, part], *some))
    return jnp.concatenate(outputs, axis=3)


def attend_in_blocks(attend, query, *by_query):
    """Attention of many queries, a block after the other.

    Up to 1,024 queries are computed at once.

    Args:
        attend: Callable `(query, *by_query) -> AttentionParts` for some queries.
        query: float array `(B, H, G, Q, D)`.
        *by_query: arrays `(B or 1, Q)`, or `None`. What the mask depends on.

    Returns:
        float array of the shape of `query`, in the dtype of the values.
    """
    length = query.shape[3]
    if queries_at_once(length) == length:
        return attend(query, *by_query).outputs()
    return _map_blocks(attend, query, *by_query)


def _map_blocks(attend, query, *by_query):
    length = query.shape[3]
    count = -(-length // _BLOCK)

    def split(x, axis):  # to (count, ...), the last block padded
        padding = [(0, -length % count if i == axis else 0) for i in range(x.ndim)]
        shape = *x.shape[:axis], count, -1, *x.shape[axis + 1 :]
        return jnp.moveaxis(jnp.pad(x, padding).reshape(shape), axis, 0)

    blocks = split(query, 3), *jax.tree.map(lambda x: split(x, 1), by_query)
    outputs = jax.lax.map(jax.checkpoint(lambda x: attend(*x).outputs()), blocks)
    outputs = jnp.moveaxis(outputs, 0, 3)
    return outputs.reshape(*query.shape[:3], -1, query.shape[4])[:, :, :, :length]
