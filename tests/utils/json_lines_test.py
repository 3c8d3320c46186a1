import time

import pytest

from star_keras.utils.json_lines import (
    append_json_lines,
    parse_json_line,
    parse_json_object,
    read_json_lines,
    read_json_object,
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


def test_a_whole_file_is_not_called_a_line(tmp_path):
    path = tmp_path / "a.json"
    for content in ("{", "[]", '{"a": "\\ud83d"}'):
        path.write_text(content)
        with pytest.raises(ValueError) as whole:
            read_json_object(path)
        assert " line of" not in str(whole.value) and "Correct" not in str(whole.value)
        with pytest.raises(ValueError, match="Correct the line: .* line of its own"):
            parse_json_line(content.encode(), set(), path, 1)


def test_a_name_that_comes_twice_among_many_is_found_at_once():
    names = [*map(str, range(20_000)), "7"]
    content = "{" + ", ".join(f'"{name}": 1' for name in names) + "}"
    start = time.monotonic()
    with pytest.raises(ValueError, match="vocab.json: .*the name '7' comes twice"):
        parse_json_object(content.encode(), "vocab.json")
    # To count each name by itself takes many seconds.
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "line 2: not valid JSON"), ("[]", "expected a JSON object"), ("{}", "'a'")],
)
def test_another_malformed_line_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        read_json_lines(path, {"a"})
