import pytest

from star_keras.outer_loop.problems import checked_problems


@pytest.mark.parametrize(
    ("value", "answer"),
    [(True, "yes"), (False, "no"), ("Yes.", "yes"), ("FALSE", "no"), (1, "yes")]
    + [(0, "no"), ("0", "no"), (1.0, "yes")],
)
def test_the_answer_of_a_record_is_yes_or_no(make_file_task, value, answer):
    (problem,) = checked_problems(
        make_file_task("yes_no", {"question": "q", "answer": value}), "train"
    )
    assert problem.answer == answer


def test_a_record_without_an_answer_is_refused(make_file_task):
    with pytest.raises(ValueError, match="line 1: Missing 'answer'"):
        make_file_task("yes_no", {"question": "q"}).problems("train")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("maybe", "line 1: .*`answer`.*yes, no, true or false.*'maybe'"),
        (2, "line 1: .*`answer`.*yes, no, true or false.*answer=2"),
        ("", "line 1: .*`answer`.*not blank"),
        (0.5, "line 1: .*`answer`.*yes, no, true or false"),
        (None, "line 1: .*`answer`.*not blank"),
        ([True], r"line 1: .*`answer`.*\[True\]"),
    ],
)
def test_what_is_neither_yes_nor_no_is_refused(make_file_task, value, message):
    with pytest.raises(ValueError, match=message):
        make_file_task("yes_no", {"question": "q", "answer": value}).problems("train")


@pytest.mark.parametrize(
    ("completion", "strict", "flexible"),
    [
        (" It flies. The answer is yes.", "yes", "yes"),
        (" The answer is no. No. The answer is **True**.", "yes", "yes"),
        (" It swims. So no.", None, "no"),
        (" Yes, it does.\nNo fish flies.", None, "yes"),
        (" The answer is nothing.", None, None),
        (" There is no reason, nobody knows.", None, None),
    ],
)
def test_yes_and_no_are_read(make_file_task, completion, strict, flexible):
    task = make_file_task("yes_no", {"question": "q", "answer": 1})
    assert task.extract_answer(completion) == strict
    assert task.extract_answer_flexible(completion) == flexible
