import base64
import gzip
import io
import json
import shutil

import numpy as np
import pytest

from star_keras.outer_loop.html_report.problem_data import UNDECIDED, ProblemData
from star_keras.storage.run_files import RunFiles
from tests.outer_loop.html_report.conftest import make_report_run
from tests.storage.conftest import edit

NASTY = [
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "\u202eright to left \u05d0\u05d1\u2066",
    "\x00\x1b[31m\u2028\u2029\ufeff",
    "emoji 👩‍🔬 and 漢字",
    "x" * 1_000_000,
    "",
]


def collect(*runs, share=1.0):
    data = ProblemData(io.BytesIO(), share)
    for number, run in enumerate(runs):
        data.add_run(number, RunFiles(run))
    return data, data.index()


def unpacked(data):
    return gzip.decompress(base64.b64decode(data, validate=True))


def rows(data, stream):
    """As the page reads them."""
    chunks = [
        json.loads(unpacked(text)) for name, text in data.chunks() if name == stream
    ]
    return [row for chunk in chunks for row in chunk]


def columns(data, stream):
    types = {"Int32Array": "<i4", "Float32Array": "<f4"}
    return {
        name: np.frombuffer(unpacked(text), types[kind])
        for found, name, kind, text in data.columns()
        if found == stream
    }


def nasty(iteration, kind, number):
    return NASTY[number % len(NASTY)]


@pytest.fixture(scope="module")
def nasty_run(tmp_path_factory):
    return make_report_run(tmp_path_factory.mktemp("nasty") / "run", nasty)


def test_every_text_comes_back_with_its_numbers(nasty_run):
    data, index = collect(nasty_run)
    samples, problems = columns(data, "samples"), rows(data, "problems")
    names = index["names"]
    for number, (completion, answer) in enumerate(rows(data, "samples")):
        (problem,) = problems[samples["problem"][number]]
        assert completion == nasty(0, "", int(problem.removeprefix("double-")))
        assert answer is None
        assert names["verdict"][samples["verdict"][number]] == "unparsed"
    assert number + 1 == index["lengths"]["samples"] == 3 * 4 + 2 * (8 + 8)


def test_decisions_and_kinds_are_in_the_columns(finished):
    data, index = collect(finished)
    samples, problems = columns(data, "samples"), rows(data, "problems")
    found = {
        (
            problems[problem][0],
            int(iteration),
            index["names"]["kind"][kind],
        ): (float(weight), index["names"]["reason"][reason])
        for problem, iteration, kind, weight, reason in zip(
            *(samples[n] for n in ("problem", "iteration", "kind", "weight", "reason")),
            strict=True,
        )
    }
    assert found["double-3", 1, "rationale"] == (1, "")
    assert found["double-2", 1, "rationale"] == (0, "incorrect")
    assert found["double-2", 1, "rationalization"] == (1, "")
    assert found["double-100", 0, "evaluation"] == (UNDECIDED, "")
    assert data.counts[0, 1, "rationale"] == {"samples": 8, "tokens": 80}


def test_the_wrong_one_of_a_pair_is_told_by_its_decision_and_not_by_its_verdict(
    finished, tmp_path
):
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / "samples" / "iteration_0001" / "selection.jsonl"
    for number, is_wrong in ((0, False), (2, True)):  # of two wrong samples
        edit(path, number, weight=1.0, reason="", is_wrong=is_wrong)
    data, index = collect(run)
    samples, problems = columns(data, "samples"), rows(data, "problems")
    wrong = np.flatnonzero(samples["is_wrong"])
    assert [problems[samples["problem"][row]][0] for row in wrong] == ["double-2"]
    verdicts = {index["names"]["verdict"][samples["verdict"][row]] for row in wrong}
    assert verdicts == {"incorrect"}


def test_the_first_rows_of_chunks_are_known(nasty_run):
    data, index = collect(nasty_run)
    lengths = [
        len(json.loads(unpacked(text)))
        for name, text in data.chunks()
        if name == "samples"
    ]
    # A completion of 1 MB ends its chunk.
    assert len(lengths) > 3
    assert index["firsts"]["samples"] == [0, *np.cumsum(lengths)[:-1].tolist()]


def test_runs_share_the_ids_of_problems_and_have_texts_of_their_own(
    finished, nasty_run
):
    data, index = collect(finished, nasty_run)
    assert index["lengths"]["problems"] == 12
    assert index["lengths"]["texts"] == 24
    texts = columns(data, "texts")
    assert sorted(texts["run"].tolist()) == [0] * 12 + [1] * 12
    number = rows(data, "problems").index(["double-3"])
    (first, _) = np.flatnonzero(texts["problem"] == number)
    question, answer, prompt, hinted = rows(data, "texts")[first]
    assert (question, answer) == ("What is twice 3?", "6")
    assert prompt == "Q: What is twice 3?\nA:"
    assert hinted == "Q: What is twice 3? (6)\nA:"


def test_a_share_of_the_problems_has_all_of_its_samples(finished):
    whole, _ = collect(finished)
    part, index = collect(finished, share=0.5)
    assert 0 < index["lengths"]["problems"] < 12
    counts = {}
    for data in (whole, part):
        problems = rows(data, "problems")
        samples = columns(data, "samples")["problem"]
        counts[data] = {p: int(np.sum(samples == n)) for n, (p,) in enumerate(problems)}
    assert counts[part].items() <= counts[whole].items()
    # Counts are those of all problems.
    assert part.counts == whole.counts


def test_a_value_that_no_column_holds_is_left_out(finished, tmp_path):
    run = tmp_path / "run" / "samples" / "iteration_0001"
    run.mkdir(parents=True)
    line = {"problem": "p", "completion": "c", "num_tokens": 10**30, "sample": -1}
    (run / "rationale.jsonl").write_text(json.dumps(line) + "\n")
    decision = {"iteration": 1, "kind": "rationale", "problem": "p", "weight": 10**400}
    (run / "selection.jsonl").write_text(json.dumps(decision) + "\n")
    data, _ = collect(tmp_path / "run")
    samples = columns(data, "samples")
    assert samples["tokens"] == [0]
    assert samples["weight"] == [UNDECIDED]
