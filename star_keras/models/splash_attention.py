"""Attention of packed rows by JAX's kernel for TPUs, which never has all scores.

Memory grows with the length of the rows, not with its square.
"""

import math

import jax
import keras
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.sharding import PartitionSpec

# Blocks of queries and of keys; the first that divides the length.
_BLOCKS = (512, 256, 128)
_OLD_KINDS = ("TPU v2", "TPU v3")


def splash_applies(length: int, device=None) -> bool:
    """Whether attention in rows of `length` tokens is left to the kernel.

    It is for TPUs from v4 on, and for rows whose length is a multiple of 128. The
    compiler refuses it for a v3, whose matrix unit does not take its products.

    Args:
        length: Tokens a row.
        device: optional JAX device. Defaults to a device of the current mesh.
    """
    device = device or _device()
    is_new = device.platform == "tpu" and device.device_kind not in _OLD_KINDS
    return is_new and length % _BLOCKS[-1] == 0


def splash_attend(
    query, key, value, segment_ids, *, scale, sliding_window=None, soft_cap=None
):
    """Causal attention within the segments of rows.

    Each device of the mesh computes its rows and heads. Devices other than TPUs
    interpret the kernel, which is slow.

    Args:
        query: float array `(B, H, G, L, D)`, see `star_keras.models.attention`. `L` is
            a multiple of 128.
        key: float array `(B, H, L, D)`.
        value: float array `(B, H, L, D)`.
        segment_ids: int32 array `(B, L)`. A token sees only tokens of its own segment.
        scale: float. Factor of the scores.
        sliding_window: optional int. A query sees this many tokens, itself included.
        soft_cap: optional float. Scores become `soft_cap * tanh(score / soft_cap)`.

    Returns:
        float array of the shape and dtype of `query`.

    Reference:
        `jax.experimental.pallas.ops.tpu.splash_attention`, on the algorithm of
        [FlashAttention-2](https://arxiv.org/abs/2307.08691).
    """
    batch, heads, group, length, head_dim = query.shape
    query = query.reshape(batch, heads * group, length, head_dim)
    query = (query.astype("float32") * scale).astype(query.dtype)

    def attend(query, key, value, segment_ids):
        kernel = _kernel(query.shape[1], length, sliding_window, soft_cap)
        ids = kernels.SegmentIds(segment_ids, segment_ids)
        return jax.vmap(kernel)(query, key, value, ids)

    if _mesh():
        rows, split = _axes(batch, heads, group)
        keys = PartitionSpec(rows, split)
        if split is not None and heads % _mesh().shape[split]:
            attend = _with_own_keys(attend, group, split)
            keys = PartitionSpec(rows)
        attend = jax.shard_map(
            attend,
            mesh=_mesh(),
            in_specs=(PartitionSpec(rows, split), keys, keys, PartitionSpec(rows)),
            out_specs=PartitionSpec(rows, split),
            check_vma=False,  # kernels do not say over which axes they differ
        )
    outputs = attend(query, key, value, segment_ids)
    return outputs.reshape(batch, heads, group, length, head_dim)


def _kernel(num_heads, length, sliding_window, soft_cap):
    """The kernel for `num_heads` query heads of one row."""
    shape = length, length
    if sliding_window is not None and sliding_window < length:
        mask = masks.LocalMask(shape, (sliding_window - 1, 0), offset=0)
    else:
        mask = masks.CausalMask(shape)
    block = next(size for size in _BLOCKS if length % size == 0)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute")
    blocks = {f"block_{name}": block for name in (*names, "q_dq", "kv_dq")}
    return kernels.make_splash_mha_single_device(
        masks.MultiHeadMask([mask] * num_heads),
        block_sizes=kernels.BlockSizes(**blocks),
        attn_logits_soft_cap=soft_cap,
        interpret=_device().platform != "tpu",
    )


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


# === The mesh ===


def _mesh():
    distribution = keras.distribution.distribution()
    return distribution and distribution.device_mesh.backend_mesh


def _device():
    mesh = _mesh()
    return mesh.devices.flat[0] if mesh else jax.devices()[0]


def _axes(batch, heads, group):
    """Mesh axes that split the rows and the query heads, or `None`."""
    mesh = _mesh()
    rows = keras.distribution.distribution().batch_dim_name
    rows = (rows,) if isinstance(rows, str) else rows
    others = [axis for axis in mesh.axis_names if axis not in rows]
    split = next((axis for axis in others if mesh.shape[axis] > 1), None)
    if split is not None:
        count, rest = divmod(heads * group, mesh.shape[split])
        # A device has the query heads of whole groups, or of a part of one group.
        if rest or (count % group and group % count):
            split = None
    parts = math.prod(mesh.shape[axis] for axis in rows)
    return rows if batch % parts == 0 else None, split
