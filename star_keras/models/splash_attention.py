"""Attention of packed rows by JAX's kernel for TPUs, which never has all scores.

Memory grows with the length of the rows, not with its square.
"""

import jax
import keras
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)

from star_keras.distribution import first_device
from star_keras.models.attention_on_mesh import attend_on_mesh

# Blocks of queries and of keys; the first that divides the length.
_BLOCKS = (512, 256, 128)
_OLD_KINDS = ("TPU v2", "TPU v3")


def splash_applies(length: int, device=None) -> bool:
    """Whether attention in rows of `length` tokens is left to the kernel.

    It is for TPUs from v4 on, and for rows whose length is a multiple of 128. The
    compiler refuses it for a v3, whose matrix unit does not take its products.
    `keras.config.disable_flash_attention()` turns it off.

    Args:
        length: Tokens a row.
        device: optional JAX device. Defaults to a device of the current mesh.
    """
    device = device or first_device()
    is_new = device.platform == "tpu" and device.device_kind not in _OLD_KINDS
    enabled = keras.config.is_flash_attention_enabled() is not False
    return enabled and is_new and length % _BLOCKS[-1] == 0


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
    length = query.shape[3]
    query = (query.astype("float32") * scale).astype(query.dtype)

    def attend(query, key, value, segment_ids):
        kernel = _kernel(query.shape[1], length, sliding_window, soft_cap)
        ids = kernels.SegmentIds(segment_ids, segment_ids)
        return jax.vmap(kernel)(query, key, value, ids)

    return attend_on_mesh(attend, query, key, value, segment_ids)


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
        interpret=first_device().platform != "tpu",
    )
