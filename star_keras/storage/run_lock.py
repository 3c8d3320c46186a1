"""The lock of a run directory: one run at a time."""

import contextlib
import os
import pathlib
import socket

from star_keras.distribution import processes


class RunLock:
    """A lock that is held until `release`, or the end of the process.

    Only the writing process takes it. Buckets have no locks.

    Args:
        directory: The run directory, an `etils.epath.Path`.
    """

    def __init__(self, directory):
        self._directory = directory
        self._path = str(directory / "lock")
        # A descriptor, since Python would close a file with the object.
        self._file: int | None = None

    def acquire(self):
        """Keep others out: other processes, and other fits of this one.

        Raises:
            RuntimeError: if the lock is held, by this object as well; names the
                process.
        """
        if not processes.is_writer() or "://" in self._path:
            return
        import fcntl  # not on Windows

        name = f"process {os.getpid()} on {socket.gethostname()}"
        # A lock is that of a descriptor: the process can refuse itself.
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            owner = pathlib.Path(self._path).read_text(encoding="utf-8")
            if owner == name:
                owner = f"another fit of this program ({name})"
            raise RuntimeError(
                f"The run directory {self._directory} is in use by "
                f"{owner or 'another process'}. "
                "Wait for it or stop it, or use another directory."
            ) from None
        os.ftruncate(file, 0)
        os.write(file, name.encode())
        self._file = file

    @contextlib.contextmanager
    def held(self):
        """A context that holds the lock; for errors see `acquire`."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def check(self):
        """Check that the directory is still the one that was locked.

        No-op if this object does not hold the lock.

        Raises:
            RuntimeError: if the directory was removed or replaced.
        """
        if self._file is None:
            return
        held = os.fstat(self._file)
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
        """Let others in. No-op if this object does not hold the lock."""
        file, self._file = self._file, None
        if file is not None:
            os.ftruncate(file, 0)
            os.close(file)
