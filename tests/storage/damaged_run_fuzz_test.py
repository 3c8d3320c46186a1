"""Run directories damaged at random: an error that helps, or the right content."""

import copy
import json
import pathlib
import re
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from star_keras.storage.run_check import check_run, next_step
from tests.storage.conftest import everything, make_run

JOURNAL = "rationale.journal.jsonl"
FILES = [
    "config.json",
    "manifest.jsonl",
    "metrics.jsonl",
    "samples/iteration_0000/evaluation.jsonl",
    "samples/iteration_0001/rationale.jsonl",
    "samples/iteration_0001/selection.jsonl",
    "samples/iteration_0001/rationalization.jsonl",
    "samples/iteration_0001/mastery.json",
    f"samples/iteration_0002/{JOURNAL}",
]
REMEDY = re.compile("[Pp]ut (it|the file) back|[Uu]se another (directory|run_dir)")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["\ud800", "rationale", "correct", "train", [], {}, [[1]]]),
)
# Thousands of writes take their time on a disk.
MEMORY = "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None
# The change of a file: what, where, and with what.
CHANGES = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1), st.none()),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("field"), st.tuples(st.floats(0, 1), st.floats(0, 1)), VALUES),
    st.tuples(st.just("new field"), st.floats(0, 1), VALUES),
    st.tuples(st.just("line"), st.floats(0, 1), VALUES),
    st.tuples(st.sampled_from(["drop", "double", "last"]), st.floats(0, 1), st.none()),
    st.tuples(st.just("other file"), st.sampled_from(FILES), st.none()),
    st.tuples(st.just("delete"), st.none(), st.none()),
    st.tuples(st.just("deep"), st.none(), st.none()),
)


def at(place, items):
    """The index of a place from 0 to 1."""
    return min(int(place * len(items)), max(len(items) - 1, 0))


def changed(content, change, contents):
    """The new content of a file; `None` if it is deleted."""
    kind, place, value = change
    if kind == "delete":
        return None
    if kind == "deep":
        return b"[" * 100_000
    if kind == "other file":
        return contents[place]
    if kind in ("cut", "insert", "flip"):
        n = at(place, content)
        if kind == "flip":
            return content[:n] + bytes([content[n] ^ value]) + content[n + 1 :]
        return content[:n] + (b"" if kind == "cut" else value + content[n:])
    # A `config.json` and a `mastery.json` are one object.
    is_lines = content.count(b"\n{") > 0
    lines = content.splitlines(True) if is_lines else [content]
    if kind in ("field", "new field"):
        line_place, name_place = place if kind == "field" else (place, 0)
        n = at(line_place, lines)
        record = json.loads(lines[n])
        names = list(record) if kind == "field" else ["new"]
        lines[n] = line_of({**record, names[at(name_place, names)]: value})
        return b"".join(lines)
    n = at(place, lines)
    new = {"line": [line_of(value)], "drop": [], "double": [lines[n]] * 2}
    if kind == "last":
        return b"".join([*lines[:n], *lines[n + 1 :], lines[n]])
    return b"".join([*lines[:n], *new[kind], *lines[n + 1 :]])


def line_of(value):
    return (json.dumps(value) + "\n").encode()


class SmallRun:
    """A run, the bytes of its files, and what is read of them."""

    def __init__(self, path):
        self.run = make_run(path, iterations=1, checkpoints=False)
        self.contents = {
            str(file.relative_to(path)): file.read_bytes()
            for file in path.rglob("*.json*")
        }
        self.whole = copy.deepcopy(everything(self.run))


@pytest.fixture(scope="module")
def small_run():
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield SmallRun(pathlib.Path(directory) / "run")


@pytest.mark.filterwarnings("ignore:Files of phases that:UserWarning")
@settings(
    max_examples=5000,
    database=None,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(name=st.sampled_from(FILES), change=CHANGES)
def test_a_damaged_file_is_an_error_that_helps_or_does_no_harm(small_run, name, change):
    run, contents, whole = small_run.run, small_run.contents, small_run.whole
    new = changed(contents[name], change, contents)
    path = run.path / name
    try:
        path.unlink() if new is None else path.write_bytes(new)
        checks = len(new or b"") % 4 == 0
        is_edited = path.name == JOURNAL and change[0] in ("insert", "flip", "field")
        try:
            found = everything(run)
        except ValueError as error:
            assert str(run.path) in str(error)
            remedies = ("ut it back", "ut the file back", "another directory")
            assert any(
                remedy in str(error) for remedy in (*remedies, "another run_dir")
            )
            # The check takes longer than a start.
            if checks and "another configuration" not in str(error):
                damaged = [f.path for f in check_run(run) if f.is_damaged]
                # A changed digest makes its file a damaged one.
                assert path in damaged or (damaged and name == "manifest.jsonl")
            return
        if checks:
            next_step(run)
        # Whatever is recorded is what was written; samples so far are samples.
        for key in found.keys() & whole.keys():
            if key.endswith("so far"):
                assert_are_of(found[key], whole[key], is_edited)
            elif key not in ("history", "trained"):
                assert found[key] == whole[key]
        if name != "manifest.jsonl":
            assert found.keys() == whole.keys()
            assert (found["history"], found["trained"]) == (whole["history"], 1)
    finally:
        # A cut manifest moves files.
        moved = name == "manifest.jsonl"
        for other in contents if moved else {name, "config.json", "metrics.jsonl"}:
            file = run.path / other
            if not file.exists() or file.read_bytes() != contents[other]:
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(contents[other])
        for discarded in run.path.glob("discarded-*") if moved else ():
            discarded.rmtree()


def assert_are_of(found, whole, is_edited):
    """Samples of a journal are the journal's own; an edit may have changed a text."""
    if is_edited:
        phases = {(sample.iteration, sample.kind) for sample in whole}
        assert {(sample.iteration, sample.kind) for sample in found} <= phases
        assert len(found) <= len(whole)
    else:
        assert [sample for sample in whole if sample in found] == found
