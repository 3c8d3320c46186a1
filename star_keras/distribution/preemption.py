"""SIGTERM, by which clusters announce that they take a machine back."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: give the same command again


class Preempted(SystemExit):
    """Ends the program with the exit code 75, after all was saved."""

    def __init__(self):
        super().__init__(EXIT_CODE)


class PreemptionNotice:
    """Remembers a SIGTERM until the work that is under way is saved.

    In a run of many processes all of them hear of it at the same point, by
    JAX's own service, whichever of them the signal was sent to.
    """

    def __init__(self):
        self._received = False
        self._previous = None
        self._points = 0

    def start(self):
        """Hear the first SIGTERM from now on instead of ending at once."""
        self._received = False
        # JAX's service hears it by itself; only main threads may set handlers.
        alone = jax.process_count() == 1
        main = threading.current_thread() is threading.main_thread()
        # Still set where an error has kept `stop` from being called.
        if alone and main and self._previous is None:
            self._previous = signal.signal(signal.SIGTERM, self._receive)

    def stop(self):
        """Put the handler back that was there."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _receive(self, number, frame):
        if self._received:
            # Nobody asks any more, after an error say.
            self.stop()
            os.kill(os.getpid(), number)
        self._received = True

    def received(self) -> bool:
        """Whether to stop here. All processes ask at the same points."""
        if jax.process_count() == 1:
            return self._received
        self._points += 1
        return multihost_utils.reached_preemption_sync_point(self._points)
