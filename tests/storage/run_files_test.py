import json
import shutil

import pytest

from star_keras.storage.run_files import RunFiles
from tests.outer_loop.html_report.conftest import make_report_run
from tests.storage.conftest import edit

RATIONALES = "samples/iteration_0001/rationale.jsonl"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_report_run(tmp_path_factory.mktemp("report") / "first")


@pytest.fixture
def path(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def everything(run):
    return [
        (iteration, kind, sample["problem"], decision and decision["weight"])
        for iteration, samples, _ in run.iterations()
        for kind, sample, decision in samples
    ]


def test_each_sample_comes_with_its_decision(finished):
    run = RunFiles(finished)
    found = everything(run)
    assert (1, "rationale", "double-3", 1.0) in found
    assert (1, "rationale", "double-2", 0.0) in found
    assert (1, "rationalization", "double-2", 1.0) in found
    assert (2, "evaluation", "double-100", None) in found
    assert len(found) == 3 * 4 + (8 + 4) + (8 + 3)
    assert len(list(run.problems())) == 12
    assert run.faults == []
    assert [line["iteration"] for line in run.history] == [0, 1, 2]


def test_damaged_lines_are_named_and_the_others_are_read(path):
    lines = (path / RATIONALES).read_text().splitlines(keepends=True)
    lines[1] = "{broken\n"
    lines[4] = json.dumps({**json.loads(lines[4]), "completion": 5}) + "\n"
    (path / RATIONALES).write_text("".join(lines))
    run = RunFiles(path)
    assert len(everything(run)) == 35 - 2
    (fault,) = run.faults
    assert f"{path / RATIONALES}, line 2: not valid JSON" in fault
    assert "The line is not shown. And 1 more in this file." in fault


def change(path):
    path.write_bytes(path.read_bytes().replace(b"incorrect", b"correct", 1))


def cut(path):
    path.write_bytes(path.read_bytes().rpartition(b"{")[0])


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "was changed since it was written"),
        (cut, "was changed since it was written"),
        (change, "was changed since it was written"),
    ],
)
def test_a_file_that_is_not_as_it_was_recorded_is_named(path, damage, fault):
    damage(path / RATIONALES)
    run = RunFiles(path)
    everything(run)
    assert run.faults == [f"{path / RATIONALES} {fault}."]


def test_a_selection_that_is_gone_is_named(path):
    (path / "samples/iteration_0002/selection.jsonl").unlink()
    run = RunFiles(path)
    everything(run)
    (fault,) = run.faults
    assert fault.endswith("iteration_0002/selection.jsonl is missing.")


def test_a_file_that_cannot_be_read_is_named(path):
    (path / RATIONALES).unlink()
    (path / RATIONALES).mkdir()
    run = RunFiles(path)
    assert len(everything(run)) == 35 - 8
    assert run.faults == [f"{path / RATIONALES} cannot be read (Is a directory)."]


def test_a_damaged_manifest_is_read_up_to_the_damage(path):
    edit(path / "manifest.jsonl", 8, phase="unknown")
    run = RunFiles(path)
    assert run.trained == 1
    assert "manifest.jsonl, line 9: 'unknown' is no phase" in run.faults[0]


def test_damaged_settings_are_named(path):
    (path / "config.json").write_text("[]")
    run = RunFiles(path)
    assert run.config == {}
    assert "config.json: expected a JSON object" in run.faults[0]


def test_missing_texts_of_the_problems_are_named(path):
    (path / "problems.jsonl").unlink()
    run = RunFiles(path)
    assert list(run.problems()) == []
    assert "problems.jsonl is missing" in run.faults[0]


def test_empty_texts_of_the_problems_are_named(path):
    (path / "problems.jsonl").write_text("")
    run = RunFiles(path)
    assert list(run.problems()) == []
    assert "problems.jsonl is empty" in run.faults[0]


def test_earlier_samples_that_are_trained_on_again_are_apart(path):
    name = path / "samples/iteration_0002/selection.jsonl"
    again = json.loads(name.read_text().splitlines()[1]) | {"iteration": 1}
    with name.open("a") as file:
        file.write(json.dumps(again) + "\n")
    found = {i: trained for i, _, trained in RunFiles(path).iterations()}
    assert found == {0: [], 1: [], 2: [again]}


@pytest.mark.parametrize("name", ["none", "samples/iteration_0001"])
def test_a_directory_of_no_run_is_refused(path, name):
    with pytest.raises(ValueError, match="`run_dir`. Expected the directory of a run"):
        RunFiles(path / name)
