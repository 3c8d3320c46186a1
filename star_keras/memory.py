"""Memory of the process on CPU."""

import ctypes
import sys

# Parameters of glibc's `mallopt`, from <malloc.h>.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8

# Parameters. One of 3 million takes 0.9 GiB instead of 0.4 with this (8 rows of 256
# tokens); one of 124 million 17 GiB (8 rows of 512), of which a step needs 7.
SMALL_MODEL = 2**24


def keep_freed_memory():
    """Let the process keep the memory it frees, for what it allocates next.

    XLA allocates the temporary buffers of a computation at each call. Large
    ones come from the operating system and go back to it, and every page of
    them is cleared and mapped anew each time: on CPU a third of a small model's
    training step. The process then stays as large as it once was.

    Small allocations come to lie in the room that a step has left, which then is
    too small for the next: a process grows to some times what a step needs. So
    this is for models up to `SMALL_MODEL`.

    Does something on Linux with glibc only. Call it before the first training
    step, and it or `use_one_arena` before Keras is imported.
    """
    use_one_arena()
    _mallopt(_MMAP_MAX, 0)
    _mallopt(_TRIM_THRESHOLD, -1)
    _mallopt(_TOP_PAD, 256 * 2**20)


def use_one_arena():
    """Let all threads allocate from one arena, for `keep_freed_memory`.

    Other arenas cannot keep a block of more than 64 MiB. glibc makes them when
    threads start, and never removes one, so call this before the imports that
    start threads (`star_keras` alone starts none, Keras and TensorFlow do).

    Does something on Linux with glibc only.
    """
    _mallopt(_ARENA_MAX, 1)


def _mallopt(parameter, value):
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(parameter, value)
