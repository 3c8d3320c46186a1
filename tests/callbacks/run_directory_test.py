import json
import math
import subprocess
import sys

import keras
import pytest

from star_keras.callbacks import run_directory
from star_keras.callbacks.run_directory import RunDirectory
from star_keras.json_lines import read_json_lines
from tests.conftest import ROOT


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run", {"seed": 1})
    yield run
    run.unlock()


def reopened(run):
    run.unlock()
    return RunDirectory(run.path, {"seed": 1})


def finish(run, iteration, **figures):
    for phase in ("sample", "rationalize", "pack", "train", "evaluate"):
        run.finish(iteration, phase, {phase: iteration, **figures})


def test_phases_and_their_figures_survive(run):
    run.finish(0, "evaluate", {"eval_accuracy": 0.5, "eval_accuracy/none": math.nan})
    run.finish(1, "sample", {"train_accuracy": 0.25})
    again = reopened(run)
    assert again.is_done(1, "sample") and not again.is_done(1, "pack")
    assert again.figures(1) == {"train_accuracy": 0.25}
    assert math.isnan(again.figures(0)["eval_accuracy/none"])
    # NaN is no JSON.
    assert again.metrics == [{"iteration": 0, "eval_accuracy": 0.5}]
    assert read_json_lines(run.path / "metrics.jsonl", set()) == again.metrics
    assert again.trained == 0
    finish(again, 1)
    assert reopened(again).trained == 1


def test_what_is_noted_once_does_not_change(run):
    run.finish(1, "sample", {"a": 1})
    run.finish(1, "sample", {"a": 2})
    assert run.figures(1) == {"a": 1}
    assert len((run.path / "manifest.jsonl").read_text().splitlines()) == 1


def test_phase_that_cannot_be_written_is_not_done(run, monkeypatch):
    def full(path, lines):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "append_json_lines", full)
        with pytest.raises(OSError, match="No space"):
            run.finish(1, "sample", {"a": 1})
    assert not run.is_done(1, "sample")
    run.finish(1, "sample", {"a": 2})
    assert reopened(run).figures(1) == {"a": 2}


def test_cut_line_of_the_manifest_is_a_phase_that_is_not_done(run):
    finish(run, 1)
    path = run.path / "manifest.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    again = reopened(run)
    assert not again.is_done(1, "evaluate") and again.metrics == []
    again.finish(1, "evaluate", {"evaluate": 1})
    assert path.read_bytes() == whole
    assert [line["iteration"] for line in again.metrics] == [1]


def test_metrics_file_is_made_of_the_manifest(run):
    finish(run, 1)
    whole = (run.path / "metrics.jsonl").read_bytes()
    (run.path / "metrics.jsonl").unlink()
    reopened(run)
    assert (run.path / "metrics.jsonl").read_bytes() == whole


def test_directory_of_a_live_run_is_refused(run):
    program = (
        "from star_keras.callbacks.run_directory import RunDirectory\n"
        f"RunDirectory({str(run.path)!r}, {{'seed': 1}})"
    )

    def other_process():
        return subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
        )

    refused = other_process()
    assert refused.returncode == 1
    assert f"{run.path} is in use by process " in refused.stderr
    # It lets go when it ends.
    run.unlock()
    assert other_process().returncode == 0
    run.lock()


def test_changed_configuration_is_named(run):
    run.unlock()
    with pytest.raises(ValueError, match="seed: 1 there, 2 here"):
        RunDirectory(run.path, {"seed": 2})
    assert json.loads((run.path / "config.json").read_text()) == {"seed": 1}


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="`run_dir`.*which is a file"):
        RunDirectory(tmp_path / "run", {})


def test_last_weights_and_states_of_training_stay(run):
    variables = [keras.Variable([1.0, 2.0])]
    for iteration in (1, 2, 3):
        run.save_weights(iteration, variables)
        run.forget_weights(keep=2)
    assert run.weights.names() == ["iteration_0002", "iteration_0003"]
    for step in (2, 4, 6):
        variables[0].assign([step, step])
        run.save_training(4, step, variables)
    variables[0].assign([0.0, 0.0])
    assert run.restore_training(3, variables) == 0
    assert run.restore_training(4, variables) == 6
    assert list(variables[0].value) == [6, 6]
    assert len(run.training.names()) == 2
    run.forget_training()
    assert run.restore_training(4, variables) == 0
