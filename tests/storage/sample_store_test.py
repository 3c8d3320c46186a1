import tracemalloc

import pytest

from star_keras.config import SelectionConfig
from star_keras.outer_loop.selection import select
from star_keras.storage.records import GradedSample, Selection
from star_keras.storage.sample_store import SampleStore
from star_keras.storage.stored_samples import KeptSamples
from star_keras.testing import Doubling


def sample(problem, **kwargs):
    fields = {
        "iteration": 1,
        "problem": problem,
        "problem_class": "c",
        "sample": 0,
        "kind": "rationale",
        "completion": 'Zwölf.\n"12"',
        "num_tokens": 4,
        "finish_reason": "stop",
        "answer": None,
        "verdict": "unparsed",
    }
    return GradedSample(**{**fields, **kwargs})


def selection(problem, weight=1.0, iteration=1):
    return Selection(
        iteration=iteration,
        kind="rationale",
        problem=problem,
        sample=0,
        weight=weight,
        reason="" if weight else "incorrect",
    )


@pytest.fixture
def store(tmp_path):
    return SampleStore(tmp_path / "samples")


def test_a_journal_becomes_one_file_in_canonical_order(store):
    a, b, c = (sample(name, answer="12") for name in "abc")
    store.append(1, "rationale", [c, a])
    store.append(1, "rationale", [b])
    assert list(store.load_journal(1, "rationale")) == [c, a, b]
    assert store.load(1, "rationale") is None
    store.finish(1, "rationale", [a, b, c])
    assert list(store.load(1, "rationale")) == [a, b, c]
    assert list(store.load_journal(1, "rationale")) == []
    assert not store.journal_path(1, "rationale").exists()


def test_a_finished_file_never_changes(store):
    store.finish(1, "rationale", [sample("a")])
    store.append(1, "rationale", [sample("b")])
    store.finish(1, "rationale", [sample("b")])
    assert list(store.load(1, "rationale")) == [sample("a")]
    # A kill between file and journal leaves both; the journal goes.
    assert not store.journal_path(1, "rationale").exists()


def test_last_line_cut_short_is_dropped_and_overwritten(store):
    store.append(1, "rationale", [sample("a"), sample("b")])
    path = store.journal_path(1, "rationale")
    path.write_bytes(path.read_bytes()[:-5])
    assert list(store.load_journal(1, "rationale")) == [sample("a")]
    store.append(1, "rationale", [sample("b")])
    assert list(store.load_journal(1, "rationale")) == [sample("a"), sample("b")]


def test_other_malformed_lines_are_named(store):
    store.append(1, "rationale", [sample("a")])
    with store.journal_path(1, "rationale").open("a") as file:
        file.write("nonsense\n")
    store.append(1, "rationale", [sample("b")])
    with pytest.raises(
        ValueError, match=r"iteration_0001/rationale.journal.jsonl, line 2: not valid"
    ):
        store.load_journal(1, "rationale")


def test_unknown_fields_are_named(store):
    store.finish(1, "rationale", [sample("a")])
    path = store.path(1, "rationale")
    path.write_text(path.read_text().replace('"sample"', '"extra": 1, "sample"'))
    with pytest.raises(ValueError, match=r"line 1: unknown fields \['extra'\]"):
        store.load(1, "rationale")


def test_a_process_that_does_not_write_leaves_files_alone(store):
    store.finish(1, "rationale", [sample("a")])
    other = SampleStore(store.directory, writes=False)
    other.append(1, "rationalization", [sample("b")])
    other.finish(1, "rationalization", [])
    other.finish_selection(1, [])
    assert list(other.load(1, "rationale")) == [sample("a")]
    files = list((store.directory / "iteration_0001").iterdir())
    assert files == [store.path(1, "rationale")]


def test_what_was_kept_is_read_with_its_samples(store):
    store.finish(1, "rationale", [sample("a"), sample("b"), sample("c")])
    # An earlier iteration's rationale that is trained on again is not its own.
    selections = [
        selection("a"),
        selection("b", 0.0),
        selection("c"),
        selection("x", 1.0, 0),
    ]
    store.finish_selection(1, selections)
    kept = store.load_kept(1)
    assert (
        [kept[0], kept[1]]
        == list(kept)
        == [(sample("a"), selections[0]), (sample("c"), selections[2])]
    )


def test_missing_or_changed_files_are_named_with_the_remedy(store):
    with pytest.raises(ValueError, match="selection.jsonl is missing.*start_iter=1"):
        store.load_kept(1)
    store.finish(1, "rationale", [sample("a")])
    store.finish_selection(1, [selection("b")])
    with pytest.raises(ValueError, match="rationale.jsonl lacks sample 0 of"):
        store.load_kept(1)
    with pytest.raises(ValueError, match="selection.jsonl was changed"):
        store.finish_selection(1, [selection("a")])


def test_samples_are_read_one_at_a_time_and_their_texts_are_not_in_memory(store):
    samples = [
        sample(name, sample=n, completion="x" * 10_000, verdict="correct")
        for name in ("a", "b")
        for n in range(500)
    ]
    store.finish(1, "rationale", samples)
    tracemalloc.start()
    found = store.load(1, "rationale")
    selections = select(Doubling(), [found], SelectionConfig(), seed=0)
    store.finish_selection(1, selections)
    kept = store.load_kept(1)
    assert sum(len(s.completion) for s, _ in kept) == 10_000_000
    assert sum(len(s.completion) for s in found) == 10_000_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000  # of 10 MB of texts
    assert found[-1] == samples[-1] and found[1:3] == samples[1:3]
    assert list(found.at([700, 3])) == [samples[700], samples[3]]


def test_kept_samples_are_in_the_order_of_their_phases(store):
    names = "abcd"
    hinted = [sample(n, kind="rationalization", verdict="correct") for n in names]
    plain = [sample(n, verdict="correct") for n in names[:2]] + [sample("c")]
    store.finish(1, "rationale", plain)
    store.finish(1, "rationalization", hinted)
    phases = store.load(1, "rationale"), store.load(1, "rationalization")
    config = SelectionConfig(weigh_by_problem=True)
    selections = select(Doubling(), phases, config, seed=0)
    kept = KeptSamples.of(phases, selections)
    expected = [plain[0], plain[1], *hinted]
    assert [s for s, _ in kept] == [kept[i][0] for i in range(6)] == expected
    assert [c.weight for c in kept.selections] == [0.5, 0.5, 0.5, 0.5, 1, 1]
    store.finish_selection(1, selections)
    assert list(store.load_kept(1)) == list(kept)
    alone = kept.where(lambda selection: selection.weight == 1) + kept
    assert [s.problem for s, _ in alone] == [*"cd", *"ab", *"abcd"]
    with pytest.raises(IndexError):
        kept[6]


def test_mastery_is_kept_from_iteration_to_iteration(store):
    assert store.load_pairs(0, "mastery") == {}
    store.finish_pairs(1, "mastery", {"a": (1, 1)})
    assert store.load_pairs(1, "mastery") == {"a": [1, 1]}
    with pytest.raises(ValueError, match="mastery.json is missing.*start_iter=2"):
        store.load_pairs(2, "mastery")
