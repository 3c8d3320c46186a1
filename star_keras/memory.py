"""Memory of the process on CPU."""

import ctypes
import sys

# Parameters of glibc's `mallopt`, from <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory():
    """Let the process keep the memory it frees, for what it allocates next.

    XLA allocates the temporary buffers of a computation at each call. Large
    ones come from the operating system and go back to it, and every page of
    them is cleared and mapped anew each time: on CPU a third of a training
    step. The process then stays as large as it once was.

    - All threads allocate from one arena: others cannot keep a block of more
      than 64 MiB. glibc makes them when threads start, and never removes one.
    - Computations on CPU run when they are called. Else JAX allocates those of
      the next call while one runs, and twice the memory is kept.

    Call it before the imports that start threads (`star_keras` alone starts
    none, Keras and TensorFlow do). `experiments` does.  Without glibc the first
    does nothing.
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
