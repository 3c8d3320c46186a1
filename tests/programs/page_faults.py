"""Prints the page faults of memory that a thread allocates again."""

import ctypes
import resource
import sys
import threading

from star_keras.utils.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = ctypes.c_size_t(2**26)


def fill():
    for _ in range(3):
        block = ctypes.c_void_p(libc.malloc(size))
        ctypes.memset(block, 1, size.value)
        libc.free(block)


def fill_in_a_thread():  # as XLA does
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()


fill_in_a_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill_in_a_thread()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
