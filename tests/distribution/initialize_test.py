import functools
import json
import re

import h5py
import numpy as np
import pytest

from star_keras.distribution import initialize
from star_keras.models import GPTJBackbone, GPTJCausalLM, load_causal_lm
from tests import forks
from tests.conftest import xla_flags


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
    """Function from a case of `distribution_processes` to how its processes ended."""
    directory = tmp_path_factory.mktemp("processes")
    save_padded_preset(directory / "preset")

    @functools.cache
    def ends(case, num_processes=2, devices=2):
        arguments = (directory, case, forks.free_address())
        running = [
            forks.Running(
                "distribution_processes",
                *(*arguments, number, num_processes),
                environment={"XLA_FLAGS": xla_flags(devices)},
            )
            for number in range(num_processes)
        ]
        return [process.wait() for process in running]

    ends.directory = directory
    return ends


def save_padded_preset(path):
    """The shipped model with a vocabulary that divides by four."""
    model = load_causal_lm("arithmetic_base")
    config = {**model.backbone.get_config(), "vocabulary_size": 292}
    padded = GPTJCausalLM(
        GPTJBackbone.from_config(config), model.preprocessor, compile=False
    )
    for variable, source in zip(padded.weights, model.weights, strict=True):
        padding = -100 if variable.path == "lm_head/bias" else 0
        widths = [(0, n - m) for n, m in zip(variable.shape, source.shape, strict=True)]
        variable.assign(np.pad(source.value, widths, constant_values=padding))
    padded.save_to_preset(str(path))


@pytest.mark.parametrize("number", [0, 1])
def test_process_that_waits_in_vain_says_for_whom(number):
    address = forks.free_address()
    done = forks.run("distribution_processes", "", "wait", address, number, 3)
    assert done.returncode == 1
    line = f"Process {number} of 3 waited 2 seconds for the others at {address}"
    assert line in done.stderr
    assert "stack trace" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("death", "num_processes", "code", "message"),
    (
        ("exception", 2, 1, "Process 1 failed: ValueError: no file"),
        ("kill", 2, -9, "Connection"),
        ("kill", 4, -9, "Connection"),
        ("silence", 2, -9, "tasks are unhealthy (stopped sending heartbeats):\n1"),
    ),
)
def test_process_that_dies_takes_the_others_down(
    ends, death, num_processes, code, message
):
    first, second, *others = ends(death, num_processes)
    assert second.returncode == code, second.stderr
    start = re.search(r"^start (.*)$", first.stdout, re.MULTILINE)
    assert start, first.stderr
    for process in (first, *others):
        assert process.returncode != 0
        # A second, the timeout of 10, a slow machine.
        assert process.ended - float(start[1]) < 25
    assert message in first.stderr


@pytest.mark.slow
def test_run_directory_that_is_not_shared_is_an_error_and_no_hang(ends):
    first, second = ends("not_shared")
    assert first.returncode != 0 and second.returncode != 0
    assert "that all processes of the run share" in second.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    (
        ("other_flag", r"than process 0 \(temperature: 0.3 there, 0.4 here\)"),
        ("other_problems", r"than process 0 \(task.problems_crc32: \d+ there, \d+ h"),
    ),
)
def test_processes_with_other_flags_or_data_end_before_anything_is_sampled(
    ends, case, message
):
    first, second = ends(case)
    assert first.returncode != 0 and second.returncode != 0
    assert re.search(message, second.stderr), second.stderr[-2000:]
    assert "Process 1 failed" in first.stderr
    assert not list((ends.directory / case).glob("samples/*/*"))


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ("batch", "model", "slice"))
def test_run_of_two_processes_is_that_of_one(ends, mesh):
    """`batch` splits rows and, with `zero`, weights; `model` heads and the MLP.

    A process of the mesh `slice` is a slice.
    """
    for process in (*ends("one", 1), *ends(mesh)):
        assert process.returncode == 0, process.stderr[-3000:]

    def files(case):
        root = ends.directory / case
        found = {str(p.relative_to(root)): p for p in root.rglob("*") if p.is_file()}
        # Names of Orbax's files are random.
        return {n: p for n, p in found.items() if not n.startswith("weights/")}

    one, two = files("one"), files(mesh)
    assert one.keys() == two.keys()
    assert "samples/iteration_0001/evaluation.jsonl" in one
    for name, file in one.items():
        if name.startswith("samples/"):
            assert two[name].read_text() == file.read_text(), name
    one_metrics, two_metrics = (
        json.loads(found["metrics.jsonl"].read_text().splitlines()[-1])
        for found in (one, two)
    )
    assert one_metrics["num_rationales"] > 0
    for name, value in one_metrics.items():
        if not name.endswith(("_second", "_seconds")):
            assert two_metrics[name] == pytest.approx(value, abs=1e-5), name
    one_sums, two_sums = (
        weight_sums(found["preset/model.weights.h5"]) for found in (one, two)
    )
    assert len(one_sums) > 10
    assert two_sums == pytest.approx(one_sums, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_new_weights_over_processes_of_one_device_train_as_in_one_process(ends):
    losses = {}
    for count in 1, 2:
        for process in ends("new_weights", count, devices=1):
            assert process.returncode == 0, process.stderr[-3000:]
        lines = (ends.directory / f"new_weights_{count}/metrics.jsonl").read_text()
        losses[count] = [json.loads(line).get("loss") for line in lines.splitlines()]
    first, second, third = losses[1]
    assert first is None and second > 1
    assert losses[2] == [None, pytest.approx(second), pytest.approx(third)]


def weight_sums(path):
    """Sum of the absolute values of each array in an HDF5 file, by its name."""
    sums = {}

    def add(name, item):
        if isinstance(item, h5py.Dataset):
            sums[name] = float(np.abs(item[...]).sum())

    with h5py.File(path) as file:
        file.visititems(add)
    return sums
