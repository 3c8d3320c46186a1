"""Memory of the process on CPU, and of the devices."""

import contextlib
import ctypes
import os
import pathlib
import sys

from star_keras.utils.errors import invalid

# Parameters of glibc's `mallopt`, from <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
# The limit of a container, by version 2 or 1 of Linux's control groups.
_LIMITS = (
    pathlib.Path("/sys/fs/cgroup/memory.max"),
    pathlib.Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def keep_freed_memory():
    """Let the process keep freed memory for its next allocations.

    XLA allocates the temporary buffers of a computation at each call. By default
    large buffers return to the operating system, which clears and maps every
    page again at the next call: a third of a training step on CPU. With this
    function the process stays at its largest size instead.

    - All threads allocate from one arena of glibc. (Other arenas cannot keep
      blocks of more than 64 MiB.) No effect without glibc.
    - Computations on CPU run when they are called. Otherwise JAX allocates the
      buffers of the next call while one runs, and twice the memory is kept.

    Call it before Keras and TensorFlow are imported, since they start threads.
    The scripts in `experiments` call it.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_ARENA_MAX, 1)
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, -1)
            mallopt(_TOP_PAD, 256 * 2**20)
    import jax  # starts threads

    jax.config.update("jax_cpu_enable_async_dispatch", False)


def total_memory() -> int:
    """Bytes of memory of all devices together, or of this machine if that is more.

    In a container the machine's memory is at most the container's limit.
    """
    import jax

    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            host = min(host, int(path.read_text()))
    stats = (device.memory_stats() for device in jax.local_devices())
    devices = sum((found or {}).get("bytes_limit", 0) for found in stats)
    return max(host, devices * jax.process_count())


def check_fits(argument: str, count: int, bytes_each: int, each: str):
    """Check that a number of arrays can fit into the memory.

    Args:
        argument: The argument that decides the number.
        count: The number.
        bytes_each: Bytes of one of them, at the least.
        each: What one of them is, e.g. `"a row"`.

    Raises:
        ValueError: if they are larger than the memory.
    """
    memory = total_memory()
    if count * bytes_each > memory:
        raise invalid(
            argument,
            f"at most {memory // bytes_each:,}: there are {memory / 2**30:.1f} GiB of "
            f"memory, and {each} takes {bytes_each:,} bytes or more",
            count,
        )
