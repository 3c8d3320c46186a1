"""The lock of a run directory: one run at a time."""

import atexit
import os
import pathlib
import socket

from star_keras.distribution import processes

# Open files of the locks that this process holds, by their path.
_files = {}


@atexit.register
def _close_files():
    for file in _files.values():
        file.close()


class RunLock:
    """A lock that the process holds until `release`, or its own end.

    Only the writing process takes it. Buckets have no locks.

    Args:
        directory: The run directory, an `etils.epath.Path`.
    """

    def __init__(self, directory):
        self._directory = directory
        self._path = str(directory / "lock")

    def acquire(self):
        """Keep other processes out. No-op if this process holds the lock.

        Raises:
            RuntimeError: if another process holds it; names the process.
        """
        if not processes.is_writer() or "://" in self._path or self._path in _files:
            return
        import fcntl  # not on Windows

        # Closing the file would release the lock.
        file = pathlib.Path(self._path).open("a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                owner = file.read() or "another process"
            raise RuntimeError(
                f"The run directory {self._directory} is in use by {owner}. "
                "Wait for it or stop it, or use another directory."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _files[self._path] = file

    def check(self):
        """Check that the directory is still the one that this process locked.

        No-op if this process does not hold the lock.

        Raises:
            RuntimeError: if the directory was removed or replaced.
        """
        file = _files.get(self._path)
        if file is None:
            return
        held = os.fstat(file.fileno())
        try:
            found = pathlib.Path(self._path).stat()
        except FileNotFoundError:
            found = None
        if found is None or not os.path.samestat(held, found):
            raise RuntimeError(
                f"The run directory {self._directory} was removed or replaced while "
                "this process worked in it. Expected it to stay until the process "
                "ends. Nothing more is written; give the command again."
            )

    def release(self):
        """Let other processes in. No-op if this process does not hold the lock."""
        file = _files.pop(self._path, None)
        if file is not None:
            file.truncate(0)
            file.close()
