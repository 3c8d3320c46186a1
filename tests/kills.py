"""Runs that are killed again and again, and all that must not depend on it."""

import contextlib
import dataclasses
import os
import re
import signal
import time

from star_keras.storage.manifest import PHASES
from star_keras.utils.json_lines import read_json_lines

# Seconds to the end of a run.
_LIMIT = 900


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kill:
    """A kill, and the end of the processes after it.

    Attributes:
        phase: The iteration and the phase that was cut.
        moment: Seconds from the first new bytes of the run to the kill.
        seconds: Seconds from the kill to the end of the last process.
        codes: The exit codes.
        errors: What the processes wrote to their standard error.
    """

    phase: str
    moment: float
    seconds: float
    codes: list[int]
    errors: list[str]


class KilledRun:
    """A run that is started and killed until it comes to its end.

    Args:
        run_dir: Its directory.
        start: Callable `run_dir -> processes` that starts it, `forks.Running`.
        draw: A `random.Random`.
        pause: Longest time, in seconds, from its first new bytes to a kill.
    """

    def __init__(self, run_dir, start, draw, pause):
        self.run_dir, self._start = run_dir, start
        self._draw, self._pause = draw, pause
        run_dir.mkdir()

    def start_and_kill(self, number: int | None = None) -> Kill | None:
        """Start the run, and kill at a random moment; `None` if it has ended.

        Args:
            number: The only process to kill. Defaults to all.
        """
        size, processes = _size_of(self.run_dir), self._start(self.run_dir)
        # Not before it does something new, so that some day it comes to its end.
        # (One that was killed at its end has nothing new to do, and ends.)
        while _size_of(self.run_dir) == size and processes[0].is_alive():
            time.sleep(0.01)
        moment = self._draw.random() * self._pause
        time.sleep(moment)
        phase, killed = phase_under_way(self.run_dir), time.time()
        for process in processes if number is None else [processes[number]]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        done = [process.wait(_LIMIT) for process in processes]
        codes = [process.returncode for process in done]
        if not any(codes):
            return None
        return Kill(
            phase=phase,
            moment=moment,
            seconds=max(process.ended for process in done) - killed,
            codes=codes,
            errors=[process.stderr for process in done],
        )


def run_to_the_end(start, run_dir):
    """Run; the seconds between its first and its last file."""
    for process in start(run_dir):
        done = process.wait(_LIMIT)
        assert done.returncode == 0, done.stderr[-3000:]
    files = [p.stat().st_mtime for p in run_dir.rglob("*") if p.is_file()]
    return max(files) - min(files)


def what_is_left(run_dir):
    """Metrics without times, and the samples, of a run that came to its end."""
    timed = re.compile(r"seconds|per_second")
    metrics = [
        {k: v for k, v in line.items() if not timed.search(k)}
        for line in read_json_lines(run_dir / "metrics.jsonl", set())
    ]
    samples = {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in (run_dir / "samples").rglob("*.*")
    }
    return metrics, samples


def phase_under_way(run_dir):
    """The iteration and the phase that a run is in."""
    lines = read_json_lines(run_dir / "manifest.jsonl", set())
    if not lines:
        return "0 evaluate"
    iteration, phase = lines[-1]["iteration"], lines[-1]["phase"]
    if phase == "evaluate":
        return f"{iteration + 1} sample"
    return f"{iteration} {PHASES[PHASES.index(phase) + 1]}"


def _size_of(run_dir):
    """Bytes of what a run has done so far."""
    while True:
        # Checkpoints come and go meanwhile.
        with contextlib.suppress(FileNotFoundError):
            paths = [*run_dir.rglob("*.jsonl"), *run_dir.rglob("_METADATA")]
            # Each start adds its command.
            paths = [path for path in paths if path.name != "commands.jsonl"]
            return sum(path.stat().st_size for path in paths)
