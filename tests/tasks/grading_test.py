from star_keras.tasks.arithmetic import Arithmetic, make_problem, scratchpad
from star_keras.tasks.grading import grade

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
