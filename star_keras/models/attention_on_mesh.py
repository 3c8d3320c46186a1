"""Kernels of attention on a mesh: each device has its own rows and heads."""

import jax
from jax.sharding import PartitionSpec

from star_keras.distribution import current_mesh


def attend_on_mesh(attend, query, key, value, segment_ids):
    """Attention by a kernel that XLA cannot divide among devices.

    Args:
        attend: Callable `(query, key, value, segment_ids) -> outputs` on a device, for
            queries and outputs `(B, N, L, D)`, keys and values `(B, K, L, D)`, where K
            divides N, and segments `(B, L)`.
        query: float array `(B, H, G, L, D)`, see `star_keras.models.attention`.
        key: float array `(B, H, L, D)`.
        value: float array `(B, H, L, D)`.
        segment_ids: int32 array `(B, L)`.

    Returns:
        float array of the shape of `query`.
    """
    shape = query.shape
    batch, heads, group, length, head_dim = shape
    query = query.reshape(batch, heads * group, length, head_dim)
    if current := current_mesh():
        rows, split = _axes(current, batch, heads, group)
        keys = PartitionSpec(rows, split)
        if split is not None and heads % current.mesh.shape[split]:
            attend = _with_own_keys(attend, group, split)
            keys = PartitionSpec(rows)
        attend = jax.shard_map(
            attend,
            mesh=current.mesh,
            in_specs=(PartitionSpec(rows, split), keys, keys, PartitionSpec(rows)),
            out_specs=PartitionSpec(rows, split),
            check_vma=False,  # kernels do not say over which axes they differ
        )
    return attend(query, key, value, segment_ids).reshape(shape)


def _with_own_keys(attend, group, axis):
    """`attend` on a device that has all keys, and some of the query heads."""

    def attend_to_own(query, key, value, segment_ids):
        count = query.shape[1]
        first = jax.lax.axis_index(axis) * count // group
        key, value = (
            jax.lax.dynamic_slice_in_dim(x, first, max(1, count // group), axis=1)
            for x in (key, value)
        )
        return attend(query, key, value, segment_ids)

    return attend_to_own


def _axes(current, batch, heads, group):
    """Mesh axes that split the rows and the query heads, or `None`."""
    mesh, rows, others = current
    split = next((axis for axis in others if mesh.shape[axis] > 1), None)
    if split is not None:
        count, rest = divmod(heads * group, mesh.shape[split])
        # A device has the query heads of whole groups, or of a part of one group.
        if rest or (count % group and group % count):
            split = None
    return rows if batch % current.parts(rows) == 0 else None, split
