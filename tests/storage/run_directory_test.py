import json
import math
import shutil
import subprocess
import sys

import keras
import pytest

from star_keras.storage import run_directory
from star_keras.storage.manifest import PHASES
from star_keras.storage.run_directory import RunDirectory
from star_keras.utils.json_lines import read_json_lines
from tests.conftest import ROOT


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.open({"seed": 1})
    yield run
    run.close()


def reopened(run):
    run.close()
    again = RunDirectory(run.path)
    again.open({"seed": 1})
    return again


def finish(run, iteration, **metrics):
    for phase in PHASES:
        run.finish(iteration, phase, {phase: iteration, **metrics})


def test_nothing_is_written_or_locked_before_it_is_opened(tmp_path):
    run = RunDirectory(tmp_path / "run")
    assert (run.trained, run.history) == (0, [])
    assert not run.path.exists()


def test_phases_and_their_metrics_survive(run):
    run.finish(0, "evaluate", {"eval_accuracy": 0.5, "eval_accuracy/none": math.nan})
    run.finish(1, "begin", {})
    run.finish(1, "sample", {"train_accuracy": 0.25})
    again = reopened(run)
    assert again.is_done(1, "sample") and not again.is_done(1, "pack")
    assert again.metrics(1) == {"train_accuracy": 0.25}
    assert math.isnan(again.metrics(0)["eval_accuracy/none"])
    # NaN is no JSON.
    assert again.history == [{"iteration": 0, "eval_accuracy": 0.5}]
    assert read_json_lines(run.path / "metrics.jsonl", set()) == again.history
    assert again.trained == 0
    finish(again, 1)
    assert reopened(again).trained == 1


def test_a_recorded_phase_does_not_change(run):
    run.finish(1, "sample", {"a": 1})
    run.finish(1, "sample", {"a": 2})
    assert run.metrics(1) == {"a": 1}
    assert len((run.path / "manifest.jsonl").read_text().splitlines()) == 1


def test_phase_that_cannot_be_written_is_not_done(run, monkeypatch):
    def full(path, lines):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "append_json_lines", full)
        with pytest.raises(OSError, match="No space"):
            run.finish(1, "begin", {"a": 1})
    assert not run.is_done(1, "begin")
    run.finish(1, "begin", {"a": 2})
    assert reopened(run).metrics(1) == {"a": 2}


def test_cut_line_of_the_manifest_is_a_phase_that_is_not_done(run):
    finish(run, 1)
    path = run.path / "manifest.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    again = reopened(run)
    assert not again.is_done(1, "evaluate") and again.history == []
    again.finish(1, "evaluate", {"evaluate": 1})
    assert path.read_bytes() == whole
    assert [line["iteration"] for line in again.history] == [1]


def test_metrics_file_is_made_of_the_manifest(run):
    finish(run, 1)
    whole = (run.path / "metrics.jsonl").read_bytes()
    (run.path / "metrics.jsonl").unlink()
    reopened(run)
    assert (run.path / "metrics.jsonl").read_bytes() == whole


def test_directory_of_a_live_run_is_refused(run):
    program = (
        "from star_keras.storage.run_directory import RunDirectory\n"
        f"RunDirectory({str(run.path)!r}).open({{'seed': 1}})"
    )

    def other_process():
        return subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
        )

    refused = other_process()
    assert refused.returncode == 1
    assert f"{run.path} is in use by process " in refused.stderr
    # It lets go when it ends.
    run.close()
    assert other_process().returncode == 0


def test_changed_configuration_is_named(run):
    run.close()
    other = RunDirectory(run.path)
    with pytest.raises(ValueError, match="seed: 1 there, 2 here"):
        other.open({"seed": 2})
    config = json.loads((run.path / "config.json").read_text())
    assert config == {"layout": 3, "seed": 1}
    # A free setting may change, and the file says what holds from now on.
    other.open({"run": {"seed": 1, "keep_weights": 3}}, free={"keep_weights"})
    other.close()
    config = json.loads((run.path / "config.json").read_text())
    assert config["run"] == {"seed": 1, "keep_weights": 3}


def test_what_differs_within_an_optimizer_is_named(tmp_path):
    def config(rate):
        optimizer = {"name": "Adam", "config": {"learning_rate": rate, "beta_2": 0.9}}
        return {"model": {"optimizer": optimizer}}

    run = RunDirectory(tmp_path)
    run.open(config(1e-6))
    run.close()
    message = r"\(optimizer.config.learning_rate: 1e-06 there, 0.001 here\)"
    with pytest.raises(ValueError, match=message):
        run.open(config(1e-3))


def test_directory_of_the_old_layout_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"layout": 2, "seed": 1}')
    run = RunDirectory(tmp_path)
    with pytest.raises(ValueError, match="layout is 2, this version reads layout 3"):
        run.open({"seed": 1})
    with pytest.raises(ValueError, match="Use another run_dir"):
        run.trained  # noqa: B018


def test_a_configuration_of_another_program_is_not_taken_for_an_old_one(tmp_path):
    (tmp_path / "config.json").write_text('{"module": "keras_hub", "config": {}}')
    message = "config.json is not the configuration of a run of this version"
    with pytest.raises(ValueError, match=message):
        RunDirectory(tmp_path).trained  # noqa: B018


@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_refused(path):
    with pytest.raises(ValueError, match="`run_dir`.*path of a file or directory"):
        RunDirectory(path)


@pytest.mark.parametrize(
    "path", ["http://a/b", "file:///tmp/a", "s3://a/b", "gs://", "gs:///", "://a"]
)
def test_a_place_that_no_file_system_here_has_is_refused(path):
    with pytest.raises(ValueError, match="`run_dir`.*a local path, or one like gs://B"):
        RunDirectory(path)


@pytest.mark.parametrize("name", ["file/run", "x" * 300])
def test_a_directory_that_cannot_be_made_is_named(tmp_path, name):
    (tmp_path / "file").write_text("")
    run = RunDirectory(tmp_path / name)
    with pytest.raises(ValueError, match=r"`run_dir`.*can be made \(.*Name another"):
        run.open({})


def test_a_file_in_its_place_is_named(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="`run_dir`.*not a file"):
        RunDirectory(tmp_path / "run")


@pytest.mark.parametrize("again", [False, True])
def test_nothing_is_written_once_the_directory_is_removed(run, again):
    store, checkpoints = run.samples, run.checkpoints
    shutil.rmtree(run.path)
    if again:  # another process has made it anew
        run.path.mkdir()
        (run.path / "lock").touch()
    for write in (
        lambda: run.finish(1, "begin", {}),
        lambda: store.append(1, "rationale", []),
        lambda: store.finish(1, "rationale", []),
        lambda: store.finish_selection(1, []),
        lambda: store.finish_pairs(1, "mastery", {}),
        lambda: checkpoints.save_weights(1, []),
        lambda: checkpoints.save_training(1, 2, []),
    ):
        with pytest.raises(RuntimeError, match="was removed or replaced"):
            write()
    names = [path.name for path in run.path.iterdir()] if run.path.exists() else []
    assert names == (["lock"] if again else [])


def test_a_new_run_takes_no_state_of_a_training_that_was_left_there(run):
    variables = [keras.Variable([1.0, 2.0])]
    for phase in PHASES[:5]:
        run.finish(1, phase, {})
    run.checkpoints.save_training(1, 3, variables)
    run.checkpoints.training.wait()
    again = reopened(run)
    assert again.checkpoints.restore_training(1, variables) == 3
    (run.path / "manifest.jsonl").unlink()
    with pytest.warns(UserWarning, match="moved to .*discarded-1"):
        again = reopened(again)
    assert again.checkpoints.restore_training(1, variables) == 0
