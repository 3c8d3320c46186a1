import pytest

from star_keras.utils.json_lines import (
    append_json_lines,
    read_json_lines,
    write_json_lines,
)


def test_a_cut_last_line_does_not_count_and_gives_way(tmp_path):
    path = tmp_path / "a.jsonl"
    append_json_lines(path, [{"a": 1}, {"a": "é\u2028"}])
    whole = path.read_bytes()
    for cut in range(1, len(whole) - whole.index(b"\n")):
        path.write_bytes(whole[:-cut])
        assert read_json_lines(path, {"a"}) == [{"a": 1}]
        append_json_lines(path, [{"a": 3}])
        assert read_json_lines(path, {"a"}) == [{"a": 1}, {"a": 3}]
    # Nothing but a cut line.
    path.write_bytes(b'{"a"')
    append_json_lines(path, [{"a": 4}])
    assert path.read_bytes() == b'{"a": 4}\n'


def test_lines_are_replaced_and_read_again(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_json_lines(path, {"a"}) == []
    write_json_lines(path, [{"a": 1}])
    write_json_lines(path, [{"a": 2}])
    assert read_json_lines(path, {"a"}) == [{"a": 2}]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 2: not valid JSON"), ("[]", "expected a JSON object"), ("{}", "'a'")],
)
def test_another_malformed_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        read_json_lines(path, {"a"})
