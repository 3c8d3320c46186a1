"""Progress output: bars in a terminal, otherwise one line a phase."""

import contextlib
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

# Metrics of times, and what took them.
PHASE_SECONDS = {
    "sampling_seconds": "sampling",
    "training_seconds": "training",
    "eval_seconds": "evaluation",
}
_WIDTH = 100


class Progress:
    """Prints the progress of a run.

    In a terminal (or a notebook) a phase shows a bar with its speed and the
    time left. When it ends, and in a file from the start, it is one line.

    Attributes:
        shown: Whether anything is printed.
    """

    def __init__(self):
        self.shown = True
        self._console = None
        self._bar = None

    @property
    def console(self) -> Console:
        """Where everything is printed."""
        if self._console is None:
            # A file gets whole lines, whatever is said of the terminal's width.
            console = Console(highlight=False)
            if not console.is_interactive:
                console = Console(highlight=False, width=_WIDTH)
            self._console = console
        return self._console

    def print(self, text=""):
        """Print a text as it is, without wrapping."""
        if self.shown:
            self.console.print(text, markup=False, soft_wrap=True)

    def start(self, description: str, unit: str) -> "Bar":
        """Begin a phase, and end the one before it.

        Args:
            description: Name of the phase.
            unit: What is counted, in the plural.
        """
        self.close()
        self._bar = Bar(self, description, unit)
        return self._bar

    @contextlib.contextmanager
    def phase(self, description: str, unit: str):
        """A context with the `Bar` of a phase, ended where it is left."""
        bar = self.start(description, unit)
        try:
            yield bar
        except BaseException:
            self.close()
            raise
        bar.end()

    def close(self):
        """Take away the bar of a phase that did not end."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Bar:
    """The progress of one phase, see `Progress.start`.

    Args:
        progress: The `Progress` that it belongs to.
        description: Name of the phase.
        unit: What is counted, in the plural.
    """

    def __init__(self, progress, description, unit):
        self._progress = progress
        self._description, self._unit = description, unit
        self._start, self._first_done = time.monotonic(), None
        self._done, self._tokens = 0, 0
        self._rich = None
        if progress.shown and progress.console.is_interactive:
            self._rich = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(compact=True),
                console=progress.console,
                transient=True,
            )
            self._task = self._rich.add_task(description, total=None, speed="")
            self._rich.start()

    def update(self, done: int, total: int, new_tokens: float = 0):
        """Show how far the phase is.

        Args:
            done: Finished units; the first call tells what was done before.
            total: All units.
            new_tokens: Tokens of the units since the last call.
        """
        if self._first_done is None:
            self._first_done = done
        self._done = done
        self._tokens += new_tokens
        if self._rich is not None:
            self._rich.update(
                self._task, completed=done, total=total, speed=self._speed()
            )

    def _speed(self):
        seconds = time.monotonic() - self._start
        return f"{self._tokens / seconds:,.0f} tokens/s" if self._tokens else ""

    def end(self):
        """End the phase with one line."""
        seconds = time.monotonic() - self._start
        new = self._done - (self._first_done or 0)
        parts = [f"{new:,} {self._unit}", self._speed(), format_seconds(seconds)]
        if self._first_done:
            parts.insert(1, f"{self._first_done:,} were there")
        self.close()
        self._progress.print(
            f"{self._description}: {', '.join(part for part in parts if part)}"
        )

    def close(self):
        """Take the bar away."""
        if self._rich is not None:
            self._rich.stop()
            self._rich = None


def format_seconds(seconds: float) -> str:
    """E.g. `"4.2 s"`, `"3 min 20 s"` or `"2 h 5 min"`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
