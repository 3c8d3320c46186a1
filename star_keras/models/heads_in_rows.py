"""Caches for TPUs: small heads side by side, which fill the lanes of the vector unit.

A TPU holds arrays in tiles whose last axis has 128 numbers. A row with a head of 64
would be half empty, so XLA gives the caches one order of axes between the decode chunks
and another within them, and copies all of them twice a chunk. Two such heads fill a
row. In a decoding step the queries of a head have zeros where the other's keys are.
That is no more work for the matrix unit, which is 128 wide as well. The many queries of
a prefill would make it more, so there the heads are separated again.

Shapes: see `star_keras.models.attention`; C heads stand in a row.
"""

import jax.numpy as jnp

from star_keras.distribution import current_mesh, first_device

_LANES = 128


def heads_in_a_row(num_kv_heads: int, head_dim: int) -> int:
    """Number of key-value heads that stand side by side in a cache.

    Args:
        num_kv_heads: Key-value heads of a layer.
        head_dim: Size of a head.

    Returns:
        1 for devices other than TPUs, for heads that do not fill a row together, and
        for those that would not divide by the devices that split them.
    """
    if first_device().platform != "tpu":
        return 1
    current = current_mesh()
    devices = current.parts(current.others) if current else 1
    count = max(1, _LANES // head_dim)
    fills = count * head_dim == _LANES and num_kv_heads % (count * devices) == 0
    return count if fills else 1


def join_heads(x, count):
    """Keys or values `(B, H, L, D)` as `(B, H / C, L, C * D)`."""
    if count == 1:
        return x
    batch, heads, length, head_dim = x.shape
    x = jnp.moveaxis(x.reshape(batch, heads // count, count, length, head_dim), 2, 3)
    return x.reshape(batch, heads // count, length, count * head_dim)


def separate_heads(x, count):
    """Joined keys or values as `(B, H, L, D)`."""
    if count == 1:
        return x
    batch, rows, length, width = x.shape
    x = jnp.moveaxis(x.reshape(batch, rows, length, count, width // count), 3, 2)
    return x.reshape(batch, rows * count, length, width // count)


def widen_queries(query, count):
    """Queries `(B, H, G, Q, D)` of joined keys: `(B, H / C, C * G, Q, C * D)`."""
    if count == 1:
        return query
    batch, heads, group, length, head_dim = query.shape
    query = query.reshape(batch, heads // count, count, group, length, 1, head_dim)
    own = jnp.eye(count, dtype=query.dtype)[:, None, None, :, None]
    shape = batch, heads // count, count * group, length, count * head_dim
    return (query * own).reshape(shape)


def split_heads(outputs, count):
    """Outputs of `widen_queries`, each of its own head: `(B, H, G, Q, D)`."""
    if count == 1:
        return outputs
    batch, rows, groups, length, width = outputs.shape
    shape = batch, rows, count, groups // count, length, count, width // count
    outputs = outputs.reshape(shape)
    own = [outputs[:, :, head, :, :, head] for head in range(count)]
    shape = batch, rows * count, groups // count, length, width // count
    return jnp.stack(own, axis=2).reshape(shape)
