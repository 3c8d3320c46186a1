"""LaTeX read and compared by math-verify, in a process with limits of time and memory.

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
# The flexible accuracy compares the answers of a phase again. About 30 MB.
_REMEMBERED = 100_000
_lock = threading.Lock()
_process: subprocess.Popen | None = None


@functools.lru_cache(maxsize=_REMEMBERED)
def rational(latex: str) -> fractions.Fraction | None:
    r"""The exact value of a LaTeX expression.

    Args:
        latex: The expression, e.g. `r"5\frac{3}{4}"`.

    Returns:
        Its value, or `None` if it is no rational number, or takes too long.

    Raises:
        RuntimeError: if math-verify does not start.
    """
    return _ask(latex, lambda pair: fractions.Fraction(*map(int, pair)))


@functools.lru_cache(maxsize=_REMEMBERED)
def equal(expected: str, answer: str) -> bool | None:
    r"""Whether an answer is the same as the expected one.

    Args:
        expected: LaTeX of a number, an expression, an interval, a set, a matrix and so
            on, e.g. `r"\frac{1}{2}"`.
        answer: LaTeX of the answer to compare.

    Returns:
        `None` if one of the two is unreadable, or after the limit of time.

    Raises:
        RuntimeError: if math-verify does not start.
    """
    return _ask([expected, answer], {True: True, False: False}.__getitem__)


def _ask(question, read):
    """The reply of the process, `None` without a reply."""
    with _lock:
        process = _running()
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(_read_line(process))
            return None if answer is None else read(answer)
        # It has ended, is stuck, or has written something else.
        except (BrokenPipeError, TypeError, ValueError, KeyError):
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
