"""Paths, JSON and records that are not what they should be."""

import dataclasses
import pathlib
from typing import Literal

import pytest

from star_keras.utils import files
from star_keras.utils.json_lines import read_json_lines, read_json_object
from star_keras.utils.memory import check_fits
from star_keras.utils.records import make_record
from star_keras.utils.settings import Settings, checked, setting


@pytest.mark.parametrize("path", ["", " ", "\n", "a\0b", None, 1, b"x", ["x"]])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(ValueError, match="argument `run_dir`. Expected"):
        files.absolute("run_dir", path)


@pytest.mark.parametrize("path", ["/", "//", "/./", "/tmp/..", pathlib.Path("/")])
def test_the_root_of_the_file_system_is_refused(path):
    with pytest.raises(ValueError, match="`run_dir`. Expected a path below the root"):
        files.absolute("run_dir", path)


def test_a_path_is_absolute_and_without_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = files.absolute("run_dir", "a/b")
    monkeypatch.chdir("/")
    assert str(found) == str(tmp_path / "a" / "b")
    assert str(files.absolute("run_dir", "~/x")) == str(pathlib.Path.home() / "x")
    assert str(files.absolute("run_dir", "gs://bucket/x")) == "gs://bucket/x"


def test_a_setting_that_is_a_path_is_one(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Out(Settings):
        output: str | None = setting(None, "Where.", is_path=True)

    monkeypatch.chdir(tmp_path)
    assert Out().output is None
    assert Out(output="a").output == str(tmp_path / "a")
    assert Out(output="~").output == str(pathlib.Path.home())
    with pytest.raises(ValueError, match="`output`. Expected the path"):
        Out(output="")


@pytest.mark.parametrize("value", [1.0, "1", None, True, -1, float("nan"), [1]])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(ValueError, match="`n`. Expected an integer of at least 0"):
        checked("n", int, value, at_least=0)


def test_what_does_not_fit_into_memory_is_refused_with_what_does():
    check_fits("batch_size", 4, 1000, "a row")
    with pytest.raises(ValueError, match="`batch_size`.*GiB of memory, and a row"):
        check_fits("batch_size", 10**15, 1000, "a row")


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b"1", "expected a JSON object"),
        (b'"a"', "expected a JSON object"),
        (b"\xff\xfe{\x00}\x00\x01", "not UTF-8 but UTF-16"),
        (b"\x80", "not UTF-8"),
        (DEEP, "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_what_is_no_json_object_is_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        read_json_object(path)
    if content:
        path.write_bytes(b'{"a": 1}\n' + content + b"\n")
        with pytest.raises(ValueError, match=f"{path}, line 2: {message}"):
            read_json_lines(path, {"a"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    count: int
    share: float
    name: str
    note: str | None
    kind: Literal["a", "b"]
    flag: bool


WHOLE = {"count": 1, "share": 0.5, "name": "ö", "note": None, "kind": "a", "flag": True}


def test_a_whole_record_is_read():
    assert make_record(Row, WHOLE, "here") == Row(**WHOLE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("count", v) for v in (-1, 1.0, "1", None, True, [1], {})),
        *(("share", v) for v in (float("nan"), float("inf"), "1", None, False, [])),
        *(("name", v) for v in (1, None, "\ud800", ["a"], {}, True)),
        *(("note", v) for v in (1, "\udfff", False, [])),
        *(("kind", v) for v in ("c", "", None, 1, ["a"], {})),
        *(("flag", v) for v in (0, 1, "true", None, [])),
    ],
)
def test_a_field_of_another_type_is_named(field, value):
    with pytest.raises(ValueError, match=f"^here: .*`{field}`. Expected .*Received"):
        make_record(Row, {**WHOLE, field: value}, "here")


@pytest.mark.parametrize("field", sorted(WHOLE))
def test_missing_and_unknown_fields_are_named(field):
    short = {k: v for k, v in WHOLE.items() if k != field}
    with pytest.raises(ValueError, match=rf"here.*missing fields \['{field}'\]"):
        make_record(Row, short, "here")
    with pytest.raises(ValueError, match=rf"here: unknown fields \['{field}x'\]"):
        make_record(Row, {**WHOLE, f"{field}x": 1}, "here")
