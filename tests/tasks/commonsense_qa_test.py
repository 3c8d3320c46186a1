import json

import pytest

from star_keras import tasks

RECORDS = [
    {
        "answerKey": "C",
        "id": "one",
        "question": {
            "question_concept": "boat",
            "choices": [
                {"label": "A", "text": "desk"},
                {"label": "B", "text": "harbor"},
                {"label": "C", "text": "sea"},
                {"label": "D", "text": "harbor"},
                {"label": "E", "text": "roof"},
            ],
            "stem": "Where does a  boat sail?",
        },
    },
    {
        "answerKey": "A",
        "id": "two",
        "question": {
            "question_concept": "oven",
            "choices": [
                {"label": label, "text": text}
                for label, text in zip("AB", ["bread", "ice"], strict=True)
            ],
            "stem": "What comes out of an oven?",
        },
    },
]


@pytest.fixture
def data_dir(tmp_path):
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    for name in ("train_rand_split.jsonl", "dev_rand_split.jsonl"):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_official_files_read_as_problems(data_dir):
    task = tasks.get("commonsense_qa", data_dir=data_dir)
    problem = task.problems("train")[0]
    assert (problem.id, problem.answer) == ("one", "c")
    assert task.format_question(problem) == (
        "Q: Where does a boat sail?\nAnswer Choices:\n(a) desk\n(b) harbor\n(c) sea\n"
        "(d) harbor\n(e) roof\nA:"
    )
    assert task.format_response("Boats sail on water.", problem) == (
        " Boats sail on water. Therefore, the answer is sea (c)."
    )


def test_a_hint_marks_the_right_choice_alone(data_dir):
    task = tasks.get("commonsense_qa", data_dir=data_dir)
    for problem in task.problems("eval"):
        plain = task.format_question(problem)
        hinted = task.format_question(problem, hint=True)
        assert hinted.count("(CORRECT)") == 1
        assert f"({problem.answer}) " in next(
            line for line in hinted.splitlines() if "(CORRECT)" in line
        )
        assert hinted.replace(" (CORRECT)", "") == plain


def test_simple_records_read_like_official_ones(data_dir, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"id": "one", "question": "Where does a boat sail?", "answer": "C", '
        '"choices": ["desk", "harbor", "sea", "harbor", "roof"]}\n'
    )
    mine = tasks.get("commonsense_qa", train_path=path, eval_path=path)
    official = tasks.get("commonsense_qa", data_dir=data_dir)
    assert mine.problems("train") == official.problems("train")[:1]


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" It floats. Therefore, the answer is blotter (b).", "b"),
        (" (b).", "b"),
        ("answer is blotter (b)", "b"),
        ("B", "b"),
        (" b.", "b"),
        ("Not (a). The answer is (D) sea, not (c).", "d"),
        ("The answer is E", "e"),
        ("Neither (a) nor (c), but (e)", "e"),
        (" A boat floats.", None),
        ("", None),
        ("The answer is a boat.", None),
        ("The answer is b) dog", "b"),
        ("The answer is: **B) dog**", "b"),
        ("The answer is option B.", "b"),
        ("The answer is choice b, a dog.", "b"),
        ("The answer is C. Dogs bark.", "c"),
        ("The answer is B. It is not cat (c).", "c"),
        ("The answer is option a dog has.", None),
        ("The answer is U.S. soil.", None),
        ("The answer is J. K. Rowling.", None),
        ("The answer is A boat.", None),
        ("The answer is (a) or (b).", None),
        ("The answer is (a), (b).", None),
        ("The answer is sea (c) or lake (d).", None),
        ("The answer is sea (c) and not lake (d).", "c"),
        ("The answer is (b), (b).", "b"),
        ("The answer is a) or b).", None),
        ("The answer is a) dog or b) cat.", None),
        ("The answer is option A or B.", None),
        ("I think b) dog", None),
    ],
)
def test_answers_are_read_tolerantly(completion, answer):
    assert tasks.CommonsenseQA().extract_answer(completion) == answer


def test_seven_examples_of_different_answers():
    examples = tasks.CommonsenseQA().few_shot_examples
    assert len(examples) == 7
    assert {example.problem.answer for example in examples} == set("abcde")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "Why?", "answer": "A"}', "line 1: .*`choices`.*None"),
        (
            '{"question": "Why?", "answer": "F", "choices": ["x", "y"]}',
            r"line 1: .*labels \['a', 'b'\].*'F'",
        ),
    ],
)
def test_malformed_records_are_named(tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        tasks.get("commonsense_qa", train_path=path).problems("train")
