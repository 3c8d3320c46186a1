"""Signals that ask a run to end: SIGTERM of a cluster, Ctrl-C of a person."""

import os
import signal
import sys
import threading
from collections.abc import Callable

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: repeat the command
# Seconds that a cluster surely waits after SIGTERM.
_PATIENCE = 10
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


def end_preempted(
    notice: PreemptionNotice,
    place,
    save: Callable,
    close: Callable,
    remedy: str = "Repeat the command to resume.",
):
    """End the program after SIGTERM or Ctrl-C.

    Args:
        notice: The notice that was received.
        place: Where progress is saved, for the message.
        save: Saves the work under way. A program of one process ends without it after
            ten seconds: clusters do not wait.
        close: Called when it is saved, or the time is over.
        remedy: The end of the message.

    Raises:
        Preempted: a `SystemExit` of code 75, after Ctrl-C 130.
        Exception: of `save`.
    """
    is_saved = _saved_in_time(save)
    close()
    if is_saved:
        state = f"progress is saved in {place}"
    else:
        state = (
            f"the last steps could not be saved within {_PATIENCE} seconds; all "
            f"before them is in {place}"
        )
    print(f"{notice.by}: {state}. {remedy}", file=sys.stderr, flush=True)
    end = Preempted(notice.by)
    if not is_saved:
        # The thread that saves would keep the interpreter. `_exit` flushes nothing.
        sys.stdout.flush()
        os._exit(end.code)
    raise end


def _saved_in_time(save):
    errors = []

    def work():
        try:
            save()
        except BaseException as error:
            errors.append(error)

    if jax.process_count() > 1:
        work()
        is_saved = True
    else:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(_PATIENCE)
        is_saved = not thread.is_alive()
    if errors:
        raise errors[0]
    return is_saved
