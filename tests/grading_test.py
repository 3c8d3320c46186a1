import math

from star_keras.grading import accuracy_by_class, grade
from star_keras.tasks.arithmetic import Arithmetic, make_problem, scratchpad

TASK = Arithmetic()
PROBLEM = make_problem("15", "27")
RIGHT = TASK.format_response(scratchpad("15", "27"), PROBLEM)


def test_verdicts():
    assert grade(TASK, PROBLEM, RIGHT) == ("4 2", "correct")
    assert grade(TASK, PROBLEM, RIGHT[:-1] + "3") == ("4 3", "incorrect")
    assert grade(TASK, PROBLEM, "who knows") == (None, "unparsed")


def test_working_counts_only_when_asked():
    lucky = RIGHT.replace("C: 1", "C: 0")
    assert grade(TASK, PROBLEM, lucky) == ("4 2", "correct")
    assert grade(TASK, PROBLEM, lucky, check_working=True) == ("4 2", "invalid_working")
    assert grade(TASK, PROBLEM, RIGHT, check_working=True) == ("4 2", "correct")


def test_accuracy_by_class_is_a_share_in_natural_order():
    graded = [
        ("10_digits", "correct"),
        ("2_digits", "correct"),
        ("2_digits", "unparsed"),
        ("2_digits", "incorrect"),
    ]
    figures = accuracy_by_class(graded, "accuracy")
    assert list(figures) == ["accuracy", "accuracy/2_digits", "accuracy/10_digits"]
    assert figures["accuracy"] == 0.5
    assert figures["accuracy/2_digits"] == 1 / 3


def test_accuracy_of_nothing_is_nan():
    assert math.isnan(accuracy_by_class([], "accuracy")["accuracy"])
