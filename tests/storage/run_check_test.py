import json
import pathlib
import re
import shutil

import pytest

from star_keras.storage.manifest import PHASES
from star_keras.storage.run_check import check_run, next_step
from star_keras.storage.run_directory import RunDirectory
from tests.storage.conftest import CONFIG, edit, everything, variables

RATIONALES = "samples/iteration_0001/rationale.jsonl"
SELECTION = "samples/iteration_0002/selection.jsonl"
EVALUATION = "samples/iteration_0000/evaluation.jsonl"
JOURNAL = "samples/iteration_0003/rationale.journal.jsonl"
WEIGHTS = "weights/iteration_0002"
TRAINING = "training/iteration_0003_step_00000002"
TEMPORARY = "weights/iteration_0003.orbax-checkpoint-tmp"

# A training checkpoint before its training is there only to be damaged.
pytestmark = pytest.mark.filterwarnings("ignore:Files of phases that:UserWarning")


@pytest.fixture
def run(whole_run, tmp_path):
    shutil.copytree(whole_run.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def damaged(run):
    return {
        str(finding.path.relative_to(run.path)): finding
        for finding in check_run(run)
        if finding.is_damaged
    }


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def double(path):
    path.write_bytes(path.read_bytes() * 2)


def empty(path):
    path.write_bytes(b"")


def text(content):
    return lambda path: path.write_text(content)


def delete(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def swap(path):
    lines = path.read_text().splitlines(True)
    path.write_text("".join(lines[::-1]))


def drop(number):
    def damage(path):
        lines = path.read_text().splitlines(True)
        path.write_text("".join(lines[:number] + lines[number + 1 :]))

    return damage


def field(number=0, **values):
    return lambda path: edit(path, number, **values)


def inside(damage, name="manifest.ocdbt"):
    return lambda path: damage(path / name)


def same_size(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a", b"b", 1))


RERUN = "start_iter="
# What is damaged, how, what is said of it, and whether it can be mended.
DAMAGE = [
    ("config.json", cut, "not valid JSON.*remove it", False),
    ("config.json", empty, "not valid JSON.*remove it", False),
    ("config.json", text("[]"), "expected a JSON object.*remove it", False),
    ("config.json", text('{"layout": 1}'), "another version", False),
    ("config.json", text('{"module": "a"}'), "not the configuration of a run", False),
    ("config.json", text("[" * 99_999), "not valid JSON", False),
    (
        "config.json",
        lambda path: path.write_bytes(path.read_bytes().replace(b"seed", b"seid")),
        "not the settings of this version: seed, seid",
        False,
    ),
    (
        "config.json",
        text(json.dumps({"layout": 3, **CONFIG, "run": 5})),
        "not the settings of this version: run",
        False,
    ),
    ("config.json", delete, "missing", False),
    ("manifest.jsonl", cut, "cut short; a run goes on before it", True),
    ("manifest.jsonl", swap, "line 1: .*Lines are missing", True),
    # Once the run has evaluated iteration 1, it cannot go without the base model.
    ("manifest.jsonl", drop(0), "line 6: expected .*'evaluate' of iteration 0", True),
    ("manifest.jsonl", drop(1), "line 2: expected .*'begin' of iteration 1", True),
    ("manifest.jsonl", drop(2), "line 3: expected .*'sample' of iteration 1", True),
    ("manifest.jsonl", drop(4), "line 5: expected .*'select' of iteration 1", True),
    ("manifest.jsonl", drop(5), "line 6: expected .*'pack' of iteration 1", True),
    ("manifest.jsonl", drop(6), "line 7: expected .*'train' of iteration 1", True),
    ("manifest.jsonl", drop(7), "line 8: expected .*'evaluate' of iteration 1", True),
    ("manifest.jsonl", drop(8), "line 9: expected .*'begin' of iteration 2", True),
    ("manifest.jsonl", double, "line 17: phase 'evaluate' of iteration 0 twice", True),
    ("manifest.jsonl", text("[1]\n"), "line 1: expected a JSON object", True),
    ("manifest.jsonl", text("x\n"), "line 1: not valid JSON", True),
    ("manifest.jsonl", field(3, iteration="1"), "line 4: '1' is no number of", True),
    ("manifest.jsonl", field(3, iteration=7), "line 4: .*Lines are missing", True),
    ("manifest.jsonl", field(3, phase="rest"), "line 4: 'rest' is no phase", True),
    ("manifest.jsonl", field(3, loss="low"), "metric 'loss' is 'low', no number", True),
    ("manifest.jsonl", field(3, files=[1]), "Expected digests", True),
    ("manifest.jsonl", field(3, files={"a": {}}), "Expected digests", True),
    ("metrics.jsonl", cut, "not what the manifest says", True),
    ("metrics.jsonl", delete, "not what the manifest says", True),
    ("metrics.jsonl", text("nonsense"), "not what the manifest says", True),
    (RATIONALES, delete, f"is missing.*{RERUN}1", False),
    (RATIONALES, empty, f"was changed.*{RERUN}1", False),
    (RATIONALES, cut, f"was changed.*{RERUN}1", False),
    (RATIONALES, double, f"was changed.*{RERUN}1", False),
    (RATIONALES, swap, f"was changed.*{RERUN}1", False),
    (RATIONALES, same_size, f"was changed.*{RERUN}1", False),
    (RATIONALES, field(iteration=2), f"was changed.*{RERUN}1", False),
    (RATIONALES, field(verdict="fine"), f"was changed.*{RERUN}1", False),
    (SELECTION, field(weight=-1), f"was changed.*{RERUN}1", False),
    (SELECTION, field(weight=1e9), f"was changed.*{RERUN}1", False),
    (SELECTION, delete, f"is missing.*{RERUN}1", False),
    (EVALUATION, cut, f"was changed.*{RERUN}1", False),
    ("samples/iteration_0001/mastery.json", cut, f"was changed.*{RERUN}1", False),
    (JOURNAL, field(verdict="fine"), "line 1: .*`verdict`.*remove it", True),
    (JOURNAL, field(iteration=2), "line 1: .*in the file of another phase", True),
    (JOURNAL, double, "line 2: .*is twice", True),
    (JOURNAL, text("{\n"), "line 1: not valid JSON.*remove it", True),
    (WEIGHTS, delete, f"is missing.*{RERUN}1", False),
    (WEIGHTS, inside(delete), f"manifest.ocdbt is missing.*{RERUN}1", False),
    (WEIGHTS, inside(cut), f"manifest.ocdbt has .* bytes.*{RERUN}1", False),
    (WEIGHTS, inside(same_size, "_METADATA"), f"was changed.*{RERUN}1", False),
    (WEIGHTS, inside(empty, "files.json"), f"not valid JSON.*{RERUN}1", False),
    (TRAINING, inside(delete), "manifest.ocdbt is missing.*earlier step", True),
    (TRAINING, inside(empty), "has 0 bytes.*earlier step", True),
    (TEMPORARY, lambda path: path.mkdir(), "unfinished save; can be removed", True),
    ("config.json.partial", text("{"), "unfinished save; can be removed", True),
]


def test_a_whole_run_has_no_damage(run):
    assert damaged(run) == {}
    assert next_step(run) == "iteration 3, from its start"


@pytest.mark.parametrize(("name", "damage", "message", "mends"), DAMAGE)
def test_damage_is_named_with_its_remedy_and_mended_if_asked(
    run, name, damage, message, mends
):
    damage(run.path / name)
    before = {p: p.read_bytes() for p in run.path.glob("*.json*")}
    found = damaged(run)
    assert {p: p.read_bytes() for p in run.path.glob("*.json*")} == before
    (finding,) = found.values()
    assert list(found) == [name]
    assert re.search(message, finding.text)
    assert (finding.mend is not None) == mends
    if mends:
        finding.mend()
        assert name not in damaged(run)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (RATIONALES, delete),
        (SELECTION, field(weight=-1)),
        (EVALUATION, delete),
        (EVALUATION, same_size),
        (WEIGHTS, inside(delete)),
        (WEIGHTS, delete),
    ],
)
def test_running_again_from_the_named_iteration_is_a_remedy(run, name, damage):
    damage(run.path / name)
    with pytest.raises(ValueError, match="start_iter=1"):
        everything(run)
        run.checkpoints.restore_weights(run.trained, variables())
    run.open(CONFIG)
    run.rewind(1)
    run.close()
    assert damaged(run) == {}
    assert run.trained == 0
    everything(run)
    assert list(run.path.glob("discarded-*/samples/iteration_0002"))


@pytest.mark.parametrize(
    ("name", "damage", "stops"),
    [
        (RATIONALES, delete, True),
        (EVALUATION, cut, True),
        (EVALUATION, same_size, False),  # not read again
        (WEIGHTS, delete, True),
        (WEIGHTS, inside(cut), True),
        (TRAINING, inside(cut), False),
        ("metrics.jsonl", delete, False),
        ("config.json", cut, True),
        ("config.json", delete, False),
    ],
)
def test_damage_at_which_a_run_stops_is_told_from_other_damage(
    run, name, damage, stops
):
    damage(run.path / name)
    (finding,) = damaged(run).values()
    assert finding.stops == stops


def test_samples_are_not_mended_while_their_manifest_is_damaged(run):
    manifest, samples = run.path / "manifest.jsonl", run.path / RATIONALES
    whole = manifest.read_bytes()
    manifest.write_bytes(b"x\n" + whole)
    text("[]\n")(samples)
    (run.path / JOURNAL).write_text("{\n")
    found = damaged(run)
    mends = {name for name, finding in found.items() if finding.mend is not None}
    assert found.keys() == {"manifest.jsonl", RATIONALES, JOURNAL}
    assert mends == {"manifest.jsonl", JOURNAL}
    # Lines before the damaged one record their files.
    manifest.write_bytes(whole + b"x\n")
    assert "was changed" in damaged(run)[RATIONALES].text
    # Without its record, the file is not needed.
    manifest.write_bytes(b"".join(whole.splitlines(True)[:2]))
    assert damaged(run)[RATIONALES].mend is not None


@pytest.mark.parametrize("damage", [delete, empty, text('{"iteration": 0, "ph')])
@pytest.mark.parametrize("kept", ["samples", "weights", "metrics.jsonl"])
def test_a_lost_manifest_is_damage_and_its_metrics_stay(run, damage, kept):
    for name in {"samples", "weights", "training"} - {kept}:
        delete(run.path / name)
    if kept != "metrics.jsonl":
        delete(run.path / "metrics.jsonl")
    damage(run.manifest)
    found = damaged(run)
    assert re.search("records nothing.*Put the file back", found["manifest.jsonl"].text)
    assert all(finding.mend is None for finding in found.values())


def test_a_run_within_its_first_evaluation_has_lost_no_manifest(run):
    for name in ("weights", "training", *(f"samples/iteration_000{i}" for i in "123")):
        delete(run.path / name)
    delete(run.path / "metrics.jsonl")
    delete(run.manifest)
    assert damaged(run) == {}


def test_metrics_of_a_lost_manifest_are_set_aside(run):
    metrics = (run.path / "metrics.jsonl").read_bytes()
    delete(run.manifest)
    with pytest.warns(UserWarning, match="moved to .*discarded-1, with a copy of"):
        everything(run)
    assert (run.path / "metrics.jsonl").read_bytes() == b""
    assert (run.path / "discarded-1/metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize("lines", [0, 2, 8, 12])
def test_files_beyond_a_manifest_that_was_cut_move_with_the_next_start(run, lines):
    def files(directory):
        root = pathlib.Path(directory)
        return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}

    before = files(run.path)
    kept = run.manifest.read_text().splitlines(True)[:lines]
    run.manifest.write_text("".join(kept))
    with pytest.warns(UserWarning, match="discarded-1"):
        everything(run)
    trained = run.trained
    discarded = run.path / "discarded-1"
    assert trained == sum('"train"' in line for line in kept)
    assert before <= files(run.path) | files(discarded)
    assert (discarded / WEIGHTS).exists() == (trained == 0)
    assert (discarded / TRAINING).exists()
    assert (discarded / JOURNAL).exists()
    # Files of the phase under way stay: a kill leaves the same.
    left = {0: set(), 2: {"iteration_0001/rationale.jsonl"}}
    if lines in left:
        left = {"iteration_0000/evaluation.jsonl"} | left[lines]
        assert files(run.path / "samples") == left
    everything(run)
    assert not (run.path / "discarded-2").exists()


def test_what_a_kill_within_a_save_left_goes_with_the_next_start(run):
    (run.path / TEMPORARY / "d").mkdir(parents=True)
    everything(run)
    assert not (run.path / TEMPORARY).exists()


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        (["sample"], "iteration 3, after its phase 'sample'"),
        (["sample", "select", "pack"], "iteration 3, after step 2 of its training"),
        (PHASES[1:6], "the evaluation of iteration 3"),
        (PHASES[1:], "iteration 4, from its start"),
    ],
)
def test_the_next_step_is_told(run, phases, expected):
    run.open(CONFIG)
    for phase in phases:
        run.finish(3, phase, {})
        if phase == "pack":
            run.checkpoints.save_training(3, 2, variables())
    run.close()
    assert next_step(run) == expected
