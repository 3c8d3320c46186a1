"""A run that is killed again and again ends as if nothing had been."""

import contextlib
import os
import random
import re
import signal
import time

import pytest

from star_keras.outer_loop.manifest import PHASES
from star_keras.utils.json_lines import read_json_lines
from tests import forks


def start(run_dir, num_processes):
    """The processes of a new run in a directory."""
    address = forks.free_address() if num_processes > 1 else ""
    return [
        forks.Running(
            "callbacks_kill", run_dir, address, n, environment={"XLA_FLAGS": ""}
        )
        for n in range(num_processes)
    ]


def succeeded(processes):
    """Whether all of a run's processes come to its end."""
    codes = [process.wait().returncode for process in processes]
    return not any(codes)


def run_to_the_end(run_dir, num_processes):
    for process in start(run_dir, num_processes):
        done = process.wait()
        assert done.returncode == 0, done.stderr[-3000:]


def what_is_left(run_dir):
    """All that must not depend on how often a run was killed."""
    timed = re.compile(r"seconds|per_second")
    metrics = [
        {k: v for k, v in line.items() if not timed.search(k)}
        for line in read_json_lines(run_dir / "metrics.jsonl", set())
    ]
    samples = {
        str(path.relative_to(run_dir)): path.read_bytes()
        for path in (run_dir / "samples").rglob("*.*")
    }
    return metrics, samples, (run_dir / "digest").read_text()


def phase_under_way(run_dir):
    lines = read_json_lines(run_dir / "manifest.jsonl", set())
    if not lines:
        return "0 evaluate"
    iteration, phase = lines[-1]["iteration"], lines[-1]["phase"]
    if phase == "evaluate":
        return f"{iteration + 1} sample"
    return f"{iteration} {PHASES[PHASES.index(phase) + 1]}"


def size_of(run_dir):
    """Bytes of what a run has done so far."""
    while True:
        # Checkpoints come and go meanwhile.
        with contextlib.suppress(FileNotFoundError):
            paths = [*run_dir.rglob("*.jsonl"), *run_dir.rglob("_METADATA")]
            return sum(path.stat().st_size for path in paths)


class Killed:
    """A run directory in which a run is started and killed, until one ends."""

    def __init__(self, run_dir, num_processes, draw, pause):
        self.run_dir, self._num_processes = run_dir, num_processes
        self._draw, self._pause = draw, pause
        run_dir.mkdir()

    def start_and_kill(self):
        """Kill at a random moment; the phase it was in, `None` if it has ended."""
        size, limit = size_of(self.run_dir), time.monotonic() + 40
        processes = start(self.run_dir, self._num_processes)
        # Not before it does something new, so that some day it comes to its end.
        # (One that was killed at its end has nothing new to do, and ends.)
        while size_of(self.run_dir) == size and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(self._draw.random() * self._pause)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        return None if succeeded(processes) else phase_under_way(self.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "kills"), [(1, 8), (2, 3)])
def test_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(
    tmp_path, num_processes, kills
):
    whole = tmp_path / "whole"
    run_to_the_end(whole, num_processes)
    files = [p.stat().st_mtime for p in whole.rglob("*") if p.is_file()]
    seconds = max(files) - min(files)
    print(f"The uninterrupted run worked for {seconds:.1f} s.")

    draw = random.Random(num_processes)
    done, ended = 0, 0
    kind = num_processes, draw, seconds / kills
    cut = Killed(tmp_path / "cut_0", *kind)
    while done < kills:
        phase = cut.start_and_kill()
        if phase:
            done += 1
            print(f"kill {done:2d} of {cut.run_dir.name} in iteration {phase}")
        else:
            ended += 1
            assert what_is_left(cut.run_dir) == what_is_left(whole)
            cut = Killed(tmp_path / f"cut_{ended}", *kind)
    run_to_the_end(cut.run_dir, num_processes)
    assert what_is_left(cut.run_dir) == what_is_left(whole)
