"""Signals that ask a run to end: SIGTERM of a cluster, Ctrl-C of a person."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: repeat the command
_INTERRUPTED = 128 + signal.SIGINT  # what shells expect after Ctrl-C
_NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class Preempted(SystemExit):
    """A `SystemExit` to be raised after everything is saved.

    Its exit code is 75, or 130 after Ctrl-C.

    Args:
        by: Name of the signal, see `PreemptionNotice.by`.
    """

    def __init__(self, by: str = "SIGTERM"):
        super().__init__(_INTERRUPTED if by == "Ctrl-C" else EXIT_CODE)


class PreemptionNotice:
    """Remembers SIGTERM or Ctrl-C until the program has saved its work.

    In a run of several processes, a SIGTERM to any of them reaches all at the same
    call of `received`, through JAX's own service, and Ctrl-C ends them at once.

    Attributes:
        by: Name of the received signal, `"SIGTERM"` or `"Ctrl-C"`.

    Example:
    ```python
    notice = PreemptionNotice()
    notice.start()
    for step in range(3):
        if notice.received():  # save what is under way here
            raise Preempted(notice.by)
    notice.stop()
    ```
    """

    def __init__(self):
        self.by = "SIGTERM"
        self._received = False
        self._previous = {}
        self._points = 0

    def start(self):
        """Replace the signal handlers. A second signal goes to the old one."""
        self._received = False
        # JAX's service has its own handler. Only main threads may set handlers.
        alone = jax.process_count() == 1
        main = threading.current_thread() is threading.main_thread()
        # After an error without `stop` the previous handlers are still known.
        if alone and main and not self._previous:
            for number in _NAMES:
                # Shells let programs in the background ignore Ctrl-C.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)

    def stop(self):
        """Restore the previous signal handlers. No-op without `start`."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number, frame):
        if self._received:
            # The program does not react, or a person does not want to wait.
            self.stop()
            os.kill(os.getpid(), number)
            return
        self.by, self._received = _NAMES[number], True
        if number == signal.SIGINT:
            # Not `print`: the signal may have come within one.
            text = "\nCtrl-C: saving. Once more ends the program at once.\n"
            os.write(2, text.encode())

    def received(self) -> bool:
        """Whether a signal was received. All processes must call this equally often."""
        if jax.process_count() == 1:
            return self._received
        self._points += 1
        return multihost_utils.reached_preemption_sync_point(self._points)
