import json

import pytest

from star_keras import tasks
from star_keras.tasks import JsonLines


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.fixture
def make_task(tmp_path):
    def make(*records):
        train = write(tmp_path / "train.jsonl", *records)
        held_out = write(tmp_path / "eval.jsonl", {"question": "q?", "answer": "a"})
        return JsonLines(train, held_out)

    return make


def test_problems_are_the_lines(make_task):
    task = make_task(
        {"question": "1+1?", "answer": "2", "class": "sum", "id": "x"},
        {"question": "Größe?", "answer": 3},
    )
    first, second = task.problems("train")
    assert (first.id, first.problem_class, first.answer) == ("x", "sum", "2")
    assert (second.id, second.answer) == ("train-2", "3")
    assert task.problems("eval")[0].question == "q?"


def test_lines_with_a_rationale_are_the_few_shot_prompt(make_task):
    task = make_task(
        {"question": "1+1?", "answer": "2", "rationale": "One and one."},
        {"question": "1+2?", "answer": "3"},
    )
    assert [p.answer for p in task.problems("train")] == ["3"]
    (example,) = task.few_shot_examples
    response = task.format_response(example.rationale, example.problem)
    assert task.extract_answer(response) == "2"


def test_worked_examples_need_an_answer(make_task):
    task = make_task({"question": "q"}, {"question": "r", "rationale": "One."})
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: Missing 'answer'"):
        task.questions("train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected a JSON object"),
        ('{"question": "q"}', "Missing 'answer'"),
        ('{"question": "q", "answer": " "}', "`answer`.*not blank"),
        ('{"question": "q", "answer": "a", "id": "good"}', "comes twice"),
    ],
)
def test_malformed_lines_are_named_by_file_and_number(tmp_path, line, message):
    good = '{"question": "q", "answer": "a", "id": "good"}'
    path = tmp_path / "train.jsonl"
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=rf"train\.jsonl, line 2.*{message}"):
        JsonLines(path, path).problems("train")


def test_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"train_path.*JSON lines.*nowhere\.jsonl"
    ):
        JsonLines(tmp_path / "nowhere.jsonl", tmp_path / "nowhere.jsonl")


def test_unknown_task_lists_what_there_is():
    with pytest.raises(ValueError, match=r"arithmetic.*jsonl.*'chess'"):
        tasks.get("chess")
