"""Outputs of the scripts: found unusable at the start, written whole at the end."""

import re

import pytest
from etils import epath

from experiments import outputs
from tests.conftest import run_experiment


@pytest.fixture
def taken(tmp_path):
    """A file where a directory must be."""
    path = tmp_path / "taken"
    path.write_text("taken")
    return path


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("evaluate", ["--output"]),
        ("few_shot", ["--output"]),
        ("pretrain", ["--output"]),
        ("convert", ["--source=arithmetic_base", "--output"]),
        ("compare", ["--run_dirs=none", "--output"]),
        ("finetune", ["--train_path=README.md", "--run_dir"]),
        ("star", ["--run_dir"]),
    ],
)
def test_an_unusable_directory_is_an_error_at_the_start(taken, script, arguments):
    *others, name = arguments
    done = run_experiment(script, *others, f"{name}={taken}")
    assert done.returncode == 1
    rule = r"Expected a directory that can be made and written to \(a file is there\)"
    message = f"Invalid value for argument `{name[2:]}`. {rule}. Received.*Name another"
    assert re.match(message, done.stderr), done.stderr[-1000:]
    assert taken.read_text() == "taken"


@pytest.mark.parametrize("more", [[], ["--suggest", "--n_train_samples=8"]])
def test_a_plan_replaces_no_other_file(taken, more):
    done = run_experiment("plan", "--topology=h100-80gb", f"--output={taken}", *more)
    assert done.returncode == 1 and done.stdout == ""
    kind = "flagfile" if more else "plan"
    assert f"`output`. Expected a new file, or a {kind} that is" in done.stderr
    assert taken.read_text() == "taken"


def test_a_directory_is_made_and_may_be_there(tmp_path):
    path = str(tmp_path / "a" / "b")
    outputs.make_directory("output", path)
    outputs.make_new_directory("output", path)
    (tmp_path / "a" / "b" / "old").touch()
    outputs.make_directory("output", path)
    outputs.make_new_directory("output", path, ["old"])
    with pytest.raises(ValueError, match="`output`.*empty directory, .* holds 'old'"):
        outputs.make_new_directory("output", path)


@pytest.mark.parametrize("path", ["taken/below", "taken"])
def test_a_directory_that_cannot_be_made_is_named(taken, path):
    path = str(taken.parent / path)
    with pytest.raises(ValueError, match=f"`out`.*can be made.*out='{path}'"):
        outputs.make_directory("out", path)


def test_a_file_is_replaced_by_one_of_its_kind_alone(tmp_path):
    path = tmp_path / "new" / "page"
    check = "output", str(path), "page", "mark"
    outputs.check_file(*check)
    path.write_text("the mark")
    outputs.check_file(*check)
    path.write_text("other")
    with pytest.raises(ValueError, match="Expected a new file, or a page that is re"):
        outputs.check_file(*check)
    with pytest.raises(ValueError, match="Expected a new file, or a page that is re"):
        outputs.check_file("output", str(tmp_path), "page", "mark")


def test_a_save_that_fails_leaves_the_directory_as_it_was(tmp_path):
    path = epath.Path(tmp_path / "preset")

    def save(directory, name="whole"):
        (epath.Path(directory) / name).touch()

    def fail(directory):
        save(directory, "half")
        raise OSError("the disk is full")

    outputs.save_directory(save, path)
    with pytest.raises(OSError, match="full"):
        outputs.save_directory(fail, path)
    assert [x.name for x in path.iterdir()] == ["whole"]
    assert [x.name for x in path.parent.iterdir()] == ["preset"]
