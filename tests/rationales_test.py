import pytest

from star_keras.rationales import Rationale, RationaleStore


def rationale(problem, **kwargs):
    fields = {
        "iteration": 1,
        "problem": problem,
        "problem_class": "c",
        "sample": 0,
        "prompt_kind": "rationale",
        "completion": 'Zwölf.\n"12"',
        "finish_reason": "stop",
        "answer": None,
        "verdict": "unparsed",
        "weight": 0.0,
    }
    return Rationale(**{**fields, **kwargs})


def test_what_is_appended_is_loaded(tmp_path):
    store = RationaleStore(tmp_path / "samples")
    batches = [[rationale("a"), rationale("b", answer="12")], [rationale("c")]]
    for batch in batches:
        store.append(1, batch)
    assert store.load(1) == sum(batches, [])
    assert store.load(2) == []


def test_last_line_cut_short_is_dropped_and_overwritten(tmp_path):
    store = RationaleStore(tmp_path)
    store.append(1, [rationale("a"), rationale("b")])
    path = store.path(1)
    path.write_bytes(path.read_bytes()[:-5])
    assert store.load(1) == [rationale("a")]
    store.append(1, [rationale("b")])
    assert store.load(1) == [rationale("a"), rationale("b")]


def test_other_malformed_lines_are_named(tmp_path):
    store = RationaleStore(tmp_path)
    store.append(1, [rationale("a")])
    with store.path(1).open("a") as file:
        file.write("nonsense\n")
    store.append(1, [rationale("b")])
    with pytest.raises(
        ValueError, match=r"iteration_0001\.jsonl, line 2: not valid JSON"
    ):
        store.load(1)


def test_unknown_fields_are_named(tmp_path):
    store = RationaleStore(tmp_path)
    store.append(1, [rationale("a")])
    path = store.path(1)
    path.write_text(path.read_text().replace('"sample"', '"extra": 1, "sample"'))
    with pytest.raises(ValueError, match=r"line 1: unknown fields \['extra'\]"):
        store.load(1)


def test_a_file_is_replaced_in_the_order_given(tmp_path):
    store = RationaleStore(tmp_path)
    first, second = rationale("a"), rationale("b", prompt_kind="evaluation")
    store.append(1, [first, second])
    store.replace(1, [second, first])
    assert store.load(1) == [second, first]
    # A process that does not write leaves files alone, and reads them.
    other = RationaleStore(tmp_path, writes=False)
    other.append(1, [first])
    other.replace(1, [])
    assert other.load(1) == [second, first]
