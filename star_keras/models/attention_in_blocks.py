"""Attention without a kernel for long rows: a block of queries after the other.

Memory grows with the length of the rows, not with its square.
"""

import functools

import jax
import jax.numpy as jnp

from star_keras.models.attention import attend, causal_bounds
from star_keras.models.attention_on_mesh import attend_on_mesh

_MOST_QUERIES = 1024
# On CPU 64 and 256 are no faster.
_BLOCK = 128


def queries_at_once(length: int) -> int:
    """Number of queries of a row of `length` tokens whose scores exist at a time."""
    return length if length <= _MOST_QUERIES else _BLOCK


def attend_in_blocks(attend, query, *by_query):
    """Attention of many queries, in blocks if there are more than 1,024.

    The backward pass computes the scores of a block again.

    Args:
        attend: Callable `(query, *by_query) -> AttentionParts` for some queries.
        query: float array `(B, H, G, Q, D)`, see `star_keras.models.attention`.
        *by_query: arrays `(B or 1, Q)` of what the mask depends on.

    Returns:
        float array of the shape of `query`, in the dtype of the values.
    """
    length = query.shape[3]
    if queries_at_once(length) == length:
        return attend(query, *by_query).outputs()
    return _map_blocks(attend, query, *by_query)


def attend_rows_in_blocks(
    query, key, value, segment_ids, *, scale, sliding_window=None, soft_cap=None
):
    """Causal attention within the segments of rows.

    Each device of the mesh computes its rows and heads. The keys of a block are those
    that some query of the same quarter of the row sees.

    Args:
        query: float array `(B, H, G, L, D)`, see `star_keras.models.attention`.
        key: float array `(B, H, L, D)`.
        value: float array `(B, H, L, D)`.
        segment_ids: int32 array `(B, L)`. A token sees only tokens of its own segment.
        scale: float. Factor of the scores.
        sliding_window: optional int. A query sees this many tokens, itself included.
        soft_cap: optional float. Scores become `soft_cap * tanh(score / soft_cap)`.

    Returns:
        float array of the shape of `query`, in the dtype of the values.
    """
    length = query.shape[3]
    places = jnp.arange(length, dtype="int32")[None]

    def attend_rows(query, key, value, segment_ids):
        def attend_to(keys, query, positions, ids):
            distance = positions[:, :, None] - places[:, None, keys]
            mask = (distance >= 0) & (distance < (sliding_window or length))
            mask = mask & (ids[:, :, None] == segment_ids[:, None, keys])
            seen = key[:, :, keys], value[:, :, keys], mask
            return attend(query, *seen, scale=scale, soft_cap=soft_cap)

        shape = query.shape
        query = query.reshape(*key.shape[:2], -1, *shape[2:])
        outputs = []
        for start, end in causal_bounds(length):
            part = slice(start, end)
            keys = slice(max(0, start + 1 - (sliding_window or length)), end)
            by_query = places[:, part], segment_ids[:, part]
            outputs.append(
                _map_blocks(
                    functools.partial(attend_to, keys), query[:, :, :, part], *by_query
                )
            )
        return jnp.concatenate(outputs, axis=3).reshape(shape)

    return attend_on_mesh(attend_rows, query, key, value, segment_ids)


def _map_blocks(attend, query, *by_query):
    length = query.shape[3]
    count = -(-length // _BLOCK)

    def split(x, axis):  # to (count, ...), the last block padded
        padding = [(0, -length % count if i == axis else 0) for i in range(x.ndim)]
        shape = *x.shape[:axis], count, -1, *x.shape[axis + 1 :]
        return jnp.moveaxis(jnp.pad(x, padding).reshape(shape), axis, 0)

    blocks = split(query, 3), *(split(x, 1) for x in by_query)
    outputs = jax.lax.map(jax.checkpoint(lambda x: attend(*x).outputs()), blocks)
    outputs = jnp.moveaxis(outputs, 0, 3)
    return outputs.reshape(*query.shape[:3], -1, query.shape[4])[:, :, :, :length]
