import pytest

from star_keras.outer_loop.problems import checked_problems
from star_keras.tasks import Problem
from star_keras.tasks.grading import grade

RECORD = {"problem": "Is $1+1$ $2$?", "solution": r"So $\boxed{2}$."}


@pytest.mark.parametrize(
    ("record", "class_by", "expected"),
    [
        (
            {"problem": "q", "level": "Level 5", "type": "Algebra", "solution": "x"}
            | {"solution": r"It is $\boxed{\frac{1}{\sqrt{2}}}$ or $\boxed{ 3 }$."},
            "level",
            ("train-1", "3", "level 5"),
        ),
        (
            {"problem": "q", "solution": "No box.", "answer": r"\frac{1}{2}"}
            | {"subject": "Geometry", "level": 3, "unique_id": "test/geometry/1.json"},
            "both",
            ("test/geometry/1.json", r"\frac{1}{2}", "geometry, level 3"),
        ),
        (
            {"question": "q", "answer": 7.0, "type": "Number Theory"},
            "subject",
            ("train-1", "7", "number theory"),
        ),
        ({"question": "q", "answer": 7}, "both", ("train-1", "7", "")),
        (
            {"question": "q", "answer": 7, "class": "own", "level": "Level ?"},
            "level",
            ("train-1", "7", "own"),
        ),
    ],
)
def test_records_of_math_that_are_read(make_file_task, record, class_by, expected):
    (problem,) = checked_problems(
        make_file_task("math", record, class_by=class_by), "train"
    )
    assert (problem.id, problem.answer, problem.problem_class) == expected


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"problem": "q", "solution": "It is 3."}, r"line 1: .*`solution`.*boxed"),
        ({"problem": "q", "solution": r"It is \boxed{3"}, r"line 1: .*`solution`"),
        ({"problem": "q"}, "line 1: Missing 'answer'"),
        ({"solution": r"\boxed{3}"}, "line 1: Missing 'question'"),
        ({"problem": "q", "answer": [3]}, "line 1: .*`answer`.*a text or a finite"),
    ],
)
def test_records_of_math_that_are_refused(make_file_task, record, message):
    with pytest.raises(ValueError, match=message):
        make_file_task("math", record).problems("train")


def test_classes_of_math_are_checked(make_file_task):
    with pytest.raises(ValueError, match="`class_by`.*'level', 'subject', 'both'"):
        make_file_task("math", RECORD, class_by="topic")


@pytest.mark.parametrize(
    ("completion", "strict", "flexible"),
    [
        (r" So $\boxed{\frac{1}{2}}$.", "correct", r"\frac{1}{2}"),
        (r" So $\boxed{0.5}$, and not $\fbox{ \dfrac12 }$.", "correct", r"\dfrac12"),
        (r" So $\boxed{0.3}$.", "incorrect", "0.3"),
        (r" So $\boxed{}$, that is 0.5.", "unparsed", "0.5"),
        (" The answer is $1/2$.", "unparsed", "1/2"),
        (" The answer is x = 0.5.", "unparsed", "x = 0.5"),
        (" It is a half.", "unparsed", None),
    ],
)
def test_answers_of_math_are_read(make_file_task, completion, strict, flexible):
    task = make_file_task("math", RECORD)
    problem = Problem(id="half", question="q", answer=r"\frac{1}{2}")
    assert grade(task, problem, completion).verdict == strict
    assert task.extract_answer_flexible(completion) == flexible
