"""What the machine can do, and what a process holds in memory."""

import time
from pathlib import Path


def matmul_peak(size=2048, seconds=2.0):
    """FLOP/s of a float32 matrix product, the best of several."""
    import jax
    from jax import numpy as jnp

    product = jax.jit(lambda a, b: a @ b)
    a = b = jnp.ones((size, size), "float32")
    product(a, b).block_until_ready()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(a, b).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def forward_flops(layers, width, tokens, attended, head_tokens=None, vocabulary=0):
    """FLOPs of matrix products in a forward pass of a GPT-J.

    Args:
        layers: Number of blocks, of a width and an MLP of four times that.
        width: Width.
        tokens: Tokens that go through the blocks.
        attended: Pairs of a token and one that it attends to, summed.
        head_tokens: Tokens that go through the head.
        vocabulary: Its size.
    """
    blocks = layers * (2 * 12 * width**2 * tokens + 4 * width * attended)
    return blocks + 2 * width * vocabulary * (head_tokens or 0)


def memory_mib(field):
    """`VmRSS` or `VmHWM` (its peak) of this process, in MiB. Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) / 1024


def reset_peak():
    """Let `VmHWM` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")
