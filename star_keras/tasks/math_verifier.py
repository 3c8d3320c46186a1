"""LaTeX read by math-verify, in a process of its own with limits of time and memory.

math-verify hangs on some inputs. Its process starts with the first expression. It ends
when an expression takes two seconds of CPU time, and starts again with the next.
"""

import atexit
import fractions
import functools
import json
import select
import subprocess
import sys
import threading
from pathlib import Path

_PROGRAM = Path(__file__).with_name("math_verify_process.py")
# For a process that is stuck without using the CPU.
_SECONDS = 60
_lock = threading.Lock()
_process: subprocess.Popen | None = None


@functools.lru_cache(maxsize=10_000)
def rational(latex: str) -> fractions.Fraction | None:
    r"""The exact value of a LaTeX expression.

    Args:
        latex: The expression, e.g. `r"5\frac{3}{4}"`.

    Returns:
        Its value, or `None` if it is no rational number, or takes too long.

    Raises:
        RuntimeError: if math-verify does not start.
    """
    with _lock:
        process = _running()
        try:
            process.stdin.write(json.dumps(latex).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(_read_line(process))
            return None if answer is None else fractions.Fraction(*map(int, answer))
        # It has ended, is stuck, or has written something else.
        except (BrokenPipeError, TypeError, ValueError):
            _stop()
            return None


def _running():
    global _process
    if _process is not None and _process.poll() is not None:  # killed from outside
        _stop()
    if _process is None:
        _process = subprocess.Popen(
            # Without the directory of the program in the path of its imports.
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if _read_line(_process) != b"ready\n":
            _stop()
            raise RuntimeError(
                "math-verify, which reads fractions and LaTeX, does not start. Try "
                f"`{sys.executable} -c 'import math_verify'`, or install it by "
                "`pip install math-verify`."
            )
    return _process


def _read_line(process):
    """The next line, empty if the process has ended or is stuck."""
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    return process.stdout.readline() if poll.poll(_SECONDS * 1000) else b""


@atexit.register
def _stop():
    global _process
    if _process is not None:
        _process.kill()
        _process.communicate()
        _process = None
