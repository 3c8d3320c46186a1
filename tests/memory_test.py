import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
import resource
import sys
import threading
from star_keras.memory import keep_freed_memory

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
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_freed_memory_is_used_again_without_page_faults():
    def page_faults(what):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, what], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert page_faults("keep") < 100 < page_faults("give back")
