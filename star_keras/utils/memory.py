"""Memory of the process on CPU."""

import ctypes
import sys

# Parameters of glibc's `mallopt`, from <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


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
