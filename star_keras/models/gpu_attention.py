"""Attention of packed rows by JAX's kernel for GPUs, which never has all scores.

Memory grows with the length of the rows, not with its square.
"""

import jax.numpy as jnp
import keras

from star_keras.distribution import first_device
from star_keras.models.attention_on_mesh import attend_on_mesh

# Queries, and keys, in shared memory at once. With 128 an RTX A6000 has too little.
_BLOCK = 64
_HEAD_DIMS = range(16, 129)
_DTYPES = ("bfloat16", "float16")


def gpu_kernel_applies(
    length: int, head_dim: int, dtype, sliding_window=None, soft_cap=None, device=None
) -> bool:
    """Whether attention in rows of `length` tokens is left to the kernel.

    It is for NVIDIA's GPUs of compute capability 8.0 or more, heads of 16 to 128
    numbers in 16 bits, and rows whose length is a multiple of 64, without a soft cap
    or a window shorter than the row. `keras.config.disable_flash_attention()` turns
    it off.

    Args:
        length: Tokens a row.
        head_dim: Size of a head.
        dtype: Dtype of queries, keys and values.
        sliding_window: optional int. A query sees this many tokens, itself included.
        soft_cap: optional float. Cap of the scores.
        device: optional JAX device. Defaults to a device of the current mesh.
    """
    device = device or first_device()
    capability = getattr(device, "compute_capability", "")  # AMD's is like "gfx942"
    return (
        keras.config.is_flash_attention_enabled() is not False
        and device.platform == "gpu"
        and capability[:1].isdigit()
        and float(capability) >= 8
        and head_dim in _HEAD_DIMS
        and dtype in _DTYPES
        and length % _BLOCK == 0
        and soft_cap is None
        and (sliding_window is None or sliding_window >= length)
    )


def gpu_attend(query, key, value, segment_ids, *, scale):
    """Causal attention within the segments of rows.

    Each device of the mesh computes its rows and heads, with keys and values repeated
    for the queries of a group. Devices other than GPUs interpret the kernel, which is
    slow.

    Args:
        query: float array `(B, H, G, L, D)`, see `star_keras.models.attention`. `L` is
            a multiple of 64.
        key: float array `(B, H, L, D)`.
        value: float array `(B, H, L, D)`.
        segment_ids: int32 array `(B, L)`. A token sees only tokens of its own segment.
        scale: float. Factor of the scores.

    Returns:
        float array of the shape and dtype of `query`.

    Reference:
        `jax.experimental.pallas.ops.gpu.attention`, on the algorithm of
        [FlashAttention-2](https://arxiv.org/abs/2307.08691).
    """
    # Here, because JAX's own tests leave it out on Windows.
    from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    names = ("q", "k", "q_dkv", "kv_dkv", "q_dq", "kv_dq")
    blocks = BlockSizes(**{f"block_{name}": _BLOCK for name in names})

    def attend(query, key, value, segment_ids):
        group = query.shape[1] // key.shape[1]
        key, value = (jnp.repeat(x, group, axis=1) for x in (key, value))
        outputs = mha(
            *(jnp.swapaxes(x, 1, 2) for x in (query, key, value)),
            segment_ids,
            sm_scale=float(scale),
            causal=True,
            block_sizes=blocks,
            interpret=first_device().platform != "gpu",
        )
        return jnp.swapaxes(outputs, 1, 2)

    return attend_on_mesh(attend, query, key, value, segment_ids)
