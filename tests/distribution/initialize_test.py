import contextlib
import json
import re
import socket
from types import SimpleNamespace

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


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Exit code, end, output and errors of two processes, by the way of one's death."""
    directory = tmp_path_factory.mktemp("ends")
    ways = ("exception", "kill", "silence", "not_shared")
    with contextlib.ExitStack() as free:
        sockets = [free.enter_context(socket.socket()) for _ in ways]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    cases = [f"{w}=127.0.0.1:{port}" for w, port in zip(ways, ports, strict=True)]
    for process in run_processes("distribution_death", directory, *cases, timeout=120):
        assert process.returncode == 0, process.stderr[-3000:]

    def end(path):
        found = json.loads(path.with_suffix(".json").read_text())
        output = path.with_suffix(".out").read_text()
        errors = path.with_suffix(".err").read_text(errors="replace")
        return SimpleNamespace(**found, output=output, errors=errors)

    return {way: [end(directory / f"{way}-{i}") for i in range(2)] for way in ways}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "code", "message"),
    (
        ("exception", 1, "Process 1 failed: ValueError: no file"),
        ("kill", -9, "Connection"),
        ("silence", -9, "tasks are unhealthy (stopped sending heartbeats):\n1"),
    ),
)
def test_process_that_dies_takes_the_other_down(ends, way, code, message):
    first, second = ends[way]
    assert second.code == code
    assert first.code != 0
    start = float(re.search(r"^start (.*)$", first.output, re.MULTILINE)[1])
    assert first.ended - start < 13  # a second, the timeout of 5, a slow machine
    assert message in first.errors


@pytest.mark.slow
def test_run_directory_that_is_not_shared_is_an_error_and_no_hang(ends):
    first, second = ends["not_shared"]
    assert first.code != 0 and second.code != 0
    assert "that all processes of the run share" in second.errors


@pytest.mark.slow
def test_run_of_two_processes_is_that_of_one(tmp_path):
    flags = (
        *("--digits=1,2", "--train_problems=6", "--eval_problems=4", "--nofew_shot"),
        *("--iterations=1", "--start_steps=2", "--learning_rate=1e-3"),
        *("--batch_size=4", "--sequence_length=128", "--warmup_steps=0", "--verbose=0"),
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
        # Names of Orbax's files are random.
        return {n: p for n, p in found.items() if not n.startswith("weights/")}

    one, two = files("one"), files("two")
    assert one.keys() == two.keys()
    assert "samples/iteration_0001/evaluation.jsonl" in one
    for name, file in one.items():
        if name.startswith("samples/"):
            assert two[name].read_text() == file.read_text(), name
    one, two = (
        json.loads(found["metrics.jsonl"].read_text().splitlines()[-1])
        for found in (one, two)
    )
    assert one["num_rationales"] > 0
    for name in one:
        if not name.endswith(("_second", "_seconds")):
            assert two[name] == pytest.approx(one[name], abs=1e-5), name
