"""A run that is killed again and again ends as if nothing had been."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from star_keras.outer_loop.manifest import PHASES
from star_keras.utils.json_lines import read_json_lines
from tests.conftest import PROGRAMS, ROOT


class Runner:
    """Runs of `callbacks_kill.py`, one after the other, in `num_processes`."""

    def __init__(self, num_processes, log):
        self._logs = [log.with_suffix(f".{n}") for n in range(num_processes)]
        self._files = [path.open("w") for path in self._logs]
        environment = {
            **os.environ,
            # As good as the real thing, unlike the other tests' environment.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
            "XLA_FLAGS": "",
            "PYTHONPATH": str(ROOT),
        }
        self._programs = [
            subprocess.Popen(
                [sys.executable, PROGRAMS / "callbacks_kill.py"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=environment,
            )
            for file in self._files
        ]
        assert self._answers() == ["ready"] * num_processes

    def _answers(self):
        answers = []
        for program in self._programs:
            # Gloo prints too.
            found = (x.split() for x in iter(program.stdout.readline, ""))
            answers.append(next((x[1] for x in found if x[:1] == ["answer"]), None))
        assert all(answers), self.errors()
        return answers

    def errors(self):
        return "\n".join(path.read_text()[-3000:] for path in self._logs)

    def start(self, run_dir):
        """Ids of the processes of a new run."""
        address = ""
        if len(self._programs) > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
        for number, program in enumerate(self._programs):
            line = f"{run_dir}\t{address}\t{number}"
            print(line, file=program.stdin, flush=True)
        return list(map(int, self._answers()))

    def succeeded(self):
        return self._answers() == ["0"] * len(self._programs)

    def close(self):
        for program, file in zip(self._programs, self._files, strict=True):
            program.stdin.close()
            program.wait()
            program.stdout.close()
            file.close()


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

    def __init__(self, run_dir, runner, draw, pause):
        self.run_dir, self._runner, self._draw = run_dir, runner, draw
        self._pause = pause
        run_dir.mkdir()

    def start_and_kill(self):
        """Kill at a random moment; the phase it was in, `None` if it has ended."""
        size, limit = size_of(self.run_dir), time.monotonic() + 40
        processes = self._runner.start(self.run_dir)
        # Not before it does something new, so that some day it comes to its end.
        # (One that was killed at its end has nothing new to do, and ends.)
        while size_of(self.run_dir) == size and time.monotonic() < limit:
            time.sleep(0.01)
        time.sleep(self._draw.random() * self._pause)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return None if self._runner.succeeded() else phase_under_way(self.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize(("num_processes", "kills"), [(1, 20), (2, 7)])
def test_run_that_is_killed_again_and_again_ends_as_if_nothing_had_been(
    tmp_path, num_processes, kills
):
    runner = Runner(num_processes, tmp_path / "log")
    try:
        whole = tmp_path / "whole"
        runner.start(whole)
        assert runner.succeeded(), runner.errors()
        files = [p.stat().st_mtime for p in whole.rglob("*") if p.is_file()]
        seconds = max(files) - min(files)
        print(f"The uninterrupted run worked for {seconds:.1f} s.")

        draw = random.Random(num_processes)
        done, ended = 0, 0
        pause = 2 * seconds / kills
        cut = Killed(tmp_path / "cut_0", runner, draw, pause)
        while done < kills:
            phase = cut.start_and_kill()
            if phase:
                done += 1
                print(f"kill {done:2d} of {cut.run_dir.name} in iteration {phase}")
            else:
                ended += 1
                assert what_is_left(cut.run_dir) == what_is_left(whole)
                cut = Killed(tmp_path / f"cut_{ended}", runner, draw, pause)
        runner.start(cut.run_dir)
        assert runner.succeeded(), runner.errors()
    finally:
        runner.close()
    assert what_is_left(cut.run_dir) == what_is_left(whole)
