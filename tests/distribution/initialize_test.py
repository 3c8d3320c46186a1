import json
import re

import pytest

from star_keras.distribution import initialize
from tests.conftest import run_experiment, run_processes


@pytest.mark.parametrize(
    ("arguments", "message"),
    (
        ({"coordinator": "a:1"}, "Missing: num_processes, process_id"),
        ({"num_processes": 2, "process_id": 0}, "Missing: coordinator"),
        (
            {"coordinator": "a:1", "num_processes": 2, "process_id": 2},
            "argument `process_id`. Expected 0 to 1.*process_id=2",
        ),
    ),
)
def test_incomplete_or_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        initialize(**arguments)


def test_arguments_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("KERAS_DISTRIBUTION_JOB_ADDRESSES", "a:1,b:1")
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="Missing: process_id"):
        initialize()
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "5")
    with pytest.raises(ValueError, match="process_id=5"):
        initialize()


# Process 1 ends in its own way while process 0 waits for it in a collective.
DYING = """
import star_keras
import os
import sys
import time
import jax
from star_keras import distribution
from star_keras.distribution import processes
distribution.initialize(sys.argv[2], 2, int(sys.argv[3]), timeout_seconds=5)
processes.sync("start")
print(f"\\nstart {time.time()}", flush=True)
if sys.argv[3] == "1":
    time.sleep(1)
    exec(sys.argv[1])
processes.sync("end")
"""
SILENT = "import subprocess; pid = os.getpid(); subprocess.Popen(['sh', '-c', " + (
    "f'sleep 16; kill -9 {pid}']); os.kill(pid, 19)"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("death", "code", "message"),
    (
        (
            "raise ValueError('no file')",
            1,
            "Process 1 failed: ValueError: no file",
        ),
        ("os.kill(os.getpid(), 9)", -9, "Connection"),
        (SILENT, -9, "tasks are unhealthy (stopped sending heartbeats):\n1"),
    ),
    ids=("exception", "kill", "silence"),
)
def test_process_that_dies_takes_the_other_down(death, code, message):
    first, second = run_processes(DYING, death, timeout=60)
    assert second.returncode == code
    assert first.returncode != 0
    start = float(re.search(r"^start (.*)$", first.stdout, re.MULTILINE)[1])
    assert first.ended - start < 13  # a second, the timeout of 5, a slow machine
    assert message in first.stderr


APART = """
import star_keras
import sys
from star_keras import distribution
from star_keras.callbacks.run_directory import RunDirectory
distribution.initialize(sys.argv[2], 2, int(sys.argv[3]))
RunDirectory(f"{sys.argv[1]}/{sys.argv[3]}", {})
distribution.processes.sync("end")
"""


@pytest.mark.slow
def test_run_directory_that_is_not_shared_is_an_error_and_no_hang(tmp_path):
    first, second = run_processes(APART, tmp_path, timeout=120)
    assert first.returncode != 0 and second.returncode != 0
    assert "that all processes of the run share" in second.stderr


@pytest.mark.slow
def test_run_of_two_processes_is_that_of_one(tmp_path):
    flags = (
        *("--digits=1,2", "--train_problems=6", "--eval_problems=4", "--no_prompt"),
        *("--iterations=1", "--start_steps=2", "--learning_rate=1e-3"),
        *("--batch_size=4", "--row_length=128", "--warmup_steps=0", "--verbose=0"),
        *("--max_new_tokens=48", "--sample_batch_size=8"),
    )
    one = run_experiment("star", *flags, f"--run_dir={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr[-3000:]
    for process in run_processes(
        "star",
        *flags,
        *("--mesh=batch:4", "--zero", f"--run_dir={tmp_path / 'two'}"),
        experiment=True,
    ):
        assert process.returncode == 0, process.stderr[-3000:]

    def files(run):
        root = tmp_path / run
        found = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
        # Orbax draws the names of its files.
        return {n: p for n, p in found.items() if not n.startswith("weights/")}

    one, two = files("one"), files("two")
    assert one.keys() == two.keys()
    for name in ("samples/iteration_0000.jsonl", "samples/iteration_0001.jsonl"):
        assert two[name].read_text() == one[name].read_text()
    one, two = (
        json.loads(found["metrics.jsonl"].read_text().splitlines()[-1])
        for found in (one, two)
    )
    assert one["num_rationales"] > 0
    for name in one:
        if not name.endswith(("_second", "_seconds")):
            assert two[name] == pytest.approx(one[name], abs=1e-5), name
