"""Python programs in forks of one process that has imported the libraries.

Imports take about five seconds, longer than most of the programs that tests start. The
server is a process of its own, since a fork of one that has used JAX's devices hangs.
"""

import atexit
import multiprocessing
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[1]
PROGRAMS = ROOT / "tests" / "programs"

# Forks import this module by its name.
sys.path.append(str(ROOT))

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.preload"])


def _run(program, arguments, environment, output):
    os.environ.update(environment)
    os.chdir(ROOT)
    # A shell's background job ignores it, and so would a fork.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, name in ((1, "out"), (2, "err")):
        with pathlib.Path(output, name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    sys.argv = [program, *arguments]
    try:
        if program.endswith(".py"):
            sys.path.insert(0, str(PROGRAMS))
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except Exception:
        # `multiprocessing` calls neither this nor the exit functions.
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()


class Running:
    """A program that is under way.

    Args:
        program: Name of a module, or of a file in `tests/programs` without `.py`.
        *arguments: Its arguments.
        environment: Variables beside those of the tests.
    """

    def __init__(self, program, *arguments, environment=()):
        if (PROGRAMS / f"{program}.py").exists():
            program = str(PROGRAMS / f"{program}.py")
        self._output = tempfile.TemporaryDirectory()
        self._arguments = [program, list(map(str, arguments))]
        self._process = _forks.Process(
            target=_run, args=(*self._arguments, dict(environment), self._output.name)
        )
        self._process.start()
        self.pid = self._process.pid

    def is_alive(self):
        """Whether it has not ended."""
        return self._process.is_alive()

    def wait(self, timeout=300):
        """A `subprocess.CompletedProcess`, with the time at which it `ended`.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout` seconds.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired(self._arguments, timeout)
        ended = time.time()
        texts = [
            pathlib.Path(self._output.name, name).read_text(errors="replace")
            for name in ("out", "err")
        ]
        self._output.cleanup()
        done = subprocess.CompletedProcess(
            self._arguments, self._process.exitcode, *texts
        )
        done.ended = ended
        return done


def run(program, *arguments, environment=(), timeout=300):
    """`Running(...)` to its end."""
    return Running(program, *arguments, environment=environment).wait(timeout)


def free_address():
    """An address of this machine for a coordinator of processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"
