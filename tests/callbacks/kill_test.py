"""A run that is killed again and again ends as if nothing had been."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from star_keras.json_lines import read_json_lines
from tests.conftest import ROOT

KILLS = 20

# Imports once and forks a run a line of its input, since imports take longer
# than most of the runs live.
PROGRAM = """
import os, sys, time, traceback

os.environ["JAX_PLATFORMS"] = "cpu"
import star_keras
import hashlib
import jax
import keras
import numpy as np
import experiments.common
from star_keras import tasks
from star_keras.callbacks import StarIterationCallback, SteadySteps
from star_keras.distribution import model_parallel, processes
from star_keras.models import GPTJCausalLM
from star_keras.sampling import get_sampler

def run(run_dir, address, process):
    jax.config.update("jax_compilation_cache_dir", "CACHE")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if address:
        jax.config.update("jax_num_cpu_devices", 2)
        initialize(address, 2, process)
        keras.distribution.set_distribution(model_parallel("batch:4"))
    keras.utils.set_random_seed(0)
    model = GPTJCausalLM.from_preset("experiments/presets/arithmetic_base")
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3, global_clipnorm=1.0, name="adam"),
        weighted_metrics=[])
    star = StarIterationCallback(
        model,
        task=tasks.get(
            "arithmetic", digits=[1, 2, 3], train_problems=100, eval_problems=20),
        sampler=get_sampler(
            model, max_new_tokens=64, batch_size=16, temperature=0.5),
        run_dir=run_dir, steps=SteadySteps(30, add=10), n_train_samples=120,
        batch_size=4, row_length=128, few_shot=False, checkpoint_steps=8)
    model.fit(
        star.dataset, epochs=4, initial_epoch=star.initial_epoch, callbacks=[star],
        verbose=0, shuffle=False)
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(processes.gather(variable.value).tobytes())
    if processes.is_writer():
        (star.run_dir / "digest").write_text(digest.hexdigest())

print("ready", flush=True)
for line in sys.stdin:
    run_dir, address, process = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        try:
            run(run_dir, address, int(process))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


class Runner:
    """Runs of the program above, one after the other."""

    def __init__(self, cache, log):
        self._file = log.open("w")
        self._program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("CACHE", str(cache))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._file,
            text=True,
            # As good as the real thing, unlike the other tests' environment.
            env={
                k: v
                for k, v in os.environ.items()
                if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"
            },
        )
        self._log = log
        assert self._answer() == "ready"

    def _answer(self):
        answer = self._program.stdout.readline().strip()
        assert answer, self._log.read_text()[-3000:]
        return answer

    def start(self, run_dir, address="", process=0):
        print(run_dir, address, process, sep="\t", file=self._program.stdin, flush=True)
        return int(self._answer())

    def status(self):
        return int(self._answer())

    def close(self):
        self._program.stdin.close()
        self._program.wait()
        self._program.stdout.close()
        self._file.close()


def what_is_left(run_dir):
    """All that must not depend on how often a run was killed."""
    timed = re.compile(r"seconds|per_second")
    metrics = [
        {k: v for k, v in line.items() if not timed.search(k)}
        for line in read_json_lines(run_dir / "metrics.jsonl", set())
    ]
    samples = {path.name: path.read_bytes() for path in (run_dir / "samples").iterdir()}
    return metrics, samples, (run_dir / "digest").read_text()


def phase_under_way(run_dir):
    lines = read_json_lines(run_dir / "manifest.jsonl", set())
    if not lines:
        return "0 evaluate"
    following = {"sample": "rationalize", "rationalize": "pack", "pack": "train"}
    iteration, phase = lines[-1]["iteration"], lines[-1]["phase"]
    if phase == "evaluate":
        return f"{iteration + 1} sample"
    return f"{iteration} {following.get(phase, 'evaluate')}"


def size_of(run_dir):
    return sum(p.stat().st_size for p in run_dir.rglob("*") if p.is_file())


class Killed:
    """A run directory in which a run is started and killed, until one ends."""

    def __init__(self, run_dir, runner, draw, pause):
        self.run_dir, self._runner, self._draw = run_dir, runner, draw
        self._pause = pause
        run_dir.mkdir()

    def start_and_kill(self):
        """Kill at a random moment; the phase it was in, `None` if it has ended."""
        size, limit = size_of(self.run_dir), time.monotonic() + 120
        pid = self._runner.start(self.run_dir)
        # Not before it does something new, so that some day it comes to its end.
        while size_of(self.run_dir) == size:
            assert time.monotonic() < limit
            time.sleep(0.01)
        time.sleep(self._draw.random() * self._pause)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return phase_under_way(self.run_dir) if self._runner.status() else None


@pytest.fixture
def runner(tmp_path):
    runner = Runner(tmp_path / "cache", tmp_path / "log")
    yield runner
    runner.close()


@pytest.mark.slow
def test_run_killed_twenty_times_ends_as_if_nothing_had_been(tmp_path, runner):
    whole = tmp_path / "whole"
    runner.start(whole)
    assert runner.status() == 0, (tmp_path / "log").read_text()[-3000:]
    files = [p.stat().st_mtime for p in whole.rglob("*") if p.is_file()]
    seconds = max(files) - min(files)
    print(f"The uninterrupted run worked for {seconds:.1f} s.")

    draw = random.Random(0)
    kills, ended = 0, 0
    cut = Killed(tmp_path / "cut_0", runner, draw, 2 * seconds / KILLS)
    while kills < KILLS:
        phase = cut.start_and_kill()
        if phase:
            kills += 1
            print(f"kill {kills:2d} of {cut.run_dir.name} in iteration {phase}")
        else:
            ended += 1
            assert what_is_left(cut.run_dir) == what_is_left(whole)
            cut = Killed(tmp_path / f"cut_{ended}", runner, draw, 2 * seconds / KILLS)
    runner.start(cut.run_dir)
    assert runner.status() == 0, (tmp_path / "log").read_text()[-3000:]
    assert what_is_left(cut.run_dir) == what_is_left(whole)
