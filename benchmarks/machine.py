"""Speed of the machine, and memory of the process."""

import time
from pathlib import Path


def matmul_peak() -> float:
    """FLOP/s of a float32 matrix product, the best of two seconds."""
    import jax
    from jax import numpy as jnp

    size = 2048
    product = jax.jit(lambda a, b: a @ b)
    a = b = jnp.ones((size, size), "float32")
    product(a, b).block_until_ready()
    best, end = float("inf"), time.perf_counter() + 2
    while time.perf_counter() < end:
        start = time.perf_counter()
        product(a, b).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def memory_mib(field: str, process: int | str = "self") -> float:
    """Memory of a process in MiB. Linux only.

    Args:
        field: `"VmRSS"`, the resident set, or `"VmHWM"`, its peak.
        process: Its number. Defaults to this process.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) / 1024


def reset_peak():
    """Set `VmHWM` to the present `VmRSS`. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
