"""Preemption: a cluster sends SIGTERM before it takes a machine back."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: repeat the command


class Preempted(SystemExit):
    """A `SystemExit` with exit code 75, to be raised after everything is saved."""

    def __init__(self):
        super().__init__(EXIT_CODE)


class PreemptionNotice:
    """Remembers a SIGTERM until the program has saved its work.

    In a run of several processes, a signal to any of them reaches all at the same
    call of `received`, through JAX's own service.

    Example:
    ```python
    notice = PreemptionNotice()
    notice.start()
    for step in range(3):
        if notice.received():  # save what is under way here
            raise Preempted
    notice.stop()
    ```
    """

    def __init__(self):
        self._received = False
        self._previous = None
        self._points = 0

    def start(self):
        """Replace the SIGTERM handler. A second SIGTERM goes to the old one."""
        self._received = False
        # JAX's service has its own handler. Only main threads may set handlers.
        alone = jax.process_count() == 1
        main = threading.current_thread() is threading.main_thread()
        # After an error without `stop` the previous handler is still known.
        if alone and main and self._previous is None:
            self._previous = signal.signal(signal.SIGTERM, self._receive)

    def stop(self):
        """Restore the previous SIGTERM handler. No-op without `start`."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _receive(self, number, frame):
        if self._received:
            # The program does not react, e.g. after an error.
            self.stop()
            os.kill(os.getpid(), number)
        self._received = True

    def received(self) -> bool:
        """Whether SIGTERM was received. All processes must call this equally often."""
        if jax.process_count() == 1:
            return self._received
        self._points += 1
        return multihost_utils.reached_preemption_sync_point(self._points)
