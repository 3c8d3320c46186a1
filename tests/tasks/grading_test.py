import dataclasses
import re

import pytest

from star_keras.tasks import GSM8K, CommonsenseQA, Problem, WordProblems
from star_keras.tasks.arithmetic import Arithmetic, make_problem, scratchpad
from star_keras.tasks.grading import answers_at_once, grade
from star_keras.tasks.task_calls import call_task
from star_keras.testing import Doubling

TASK = Arithmetic()
PROBLEM = make_problem("15", "27")
RIGHT = TASK.format_response(scratchpad("15", "27"), PROBLEM)


def test_verdicts():
    assert grade(TASK, PROBLEM, RIGHT) == ("4 2", "correct", "")
    wrong = ("4 3", "incorrect", "'4 3' is not '4 2'")
    assert grade(TASK, PROBLEM, RIGHT[:-1] + "3") == wrong
    unread = "no answer can be read without '</scratch>'"
    assert grade(TASK, PROBLEM, "who knows") == (None, "unparsed", unread)
    unread = "no answer can be read in ' No.'"
    assert grade(TASK, PROBLEM, "</scratch> No.") == (None, "unparsed", unread)
    unread = "the thoughts have no end"
    assert grade(TASK, PROBLEM, "4 2", opened=True) == (None, "unparsed", unread)


def test_without_a_known_answer_the_verdict_is_unknown():
    problem = dataclasses.replace(PROBLEM, answer=None)
    unknown = ("4 2", "unknown", "the problem has no answer")
    for check_working in (False, True):
        assert grade(TASK, problem, RIGHT, check_working=check_working) == unknown
    assert grade(TASK, problem, "who knows").verdict == "unparsed"


def test_a_colon_before_the_answer_is_no_part_of_it():
    task = Doubling()
    for answer in (": 4", ": 4.", ":\n\n4", "4", "\n4."):
        assert task.extract_answer(f" 2 + 2 = 4. The answer is{answer}") == "4"
    assert task.extract_answer(" The answer is :) .") == ":)"
    assert task.extract_answer(" The answer is:") is None


def test_working_counts_only_when_asked():
    lucky = RIGHT.replace("C: 1", "C: 0")
    assert grade(TASK, PROBLEM, lucky) == ("4 2", "correct", "")
    graded = grade(TASK, PROBLEM, lucky, check_working=True)
    assert graded[:2] == ("4 2", "invalid_working")
    assert re.fullmatch("'.*C: 0' is not '.*C: 1'", graded.reason)
    assert grade(TASK, PROBLEM, RIGHT, check_working=True) == ("4 2", "correct", "")


def test_a_verdict_on_steps_is_a_text():
    class Old(Arithmetic):
        def working_fault(self, completion, problem):
            return False

    with pytest.raises(ValueError, match="`working_fault`.*'arithmetic'.*False"):
        grade(Old(), PROBLEM, RIGHT, check_working=True)


def test_an_answer_that_is_read_is_a_text():
    class Old(Arithmetic):
        def extract_answer(self, completion):
            return super().extract_answer(completion) or False

    assert grade(Old(), PROBLEM, RIGHT).verdict == "correct"
    with pytest.raises(ValueError, match="`extract_answer`.*'arithmetic'.*'who kn"):
        grade(Old(), PROBLEM, "who knows")


@pytest.mark.parametrize("method", ["extract_answer", "is_correct", "working_fault"])
def test_an_error_of_an_own_task_names_problem_and_completion(method):
    def fail(self, text, problem=None):
        raise KeyError("mine")

    task = type("Mine", (Arithmetic,), {method: fail})()
    with pytest.raises(KeyError, match="mine") as caught:
        grade(task, PROBLEM, RIGHT, check_working=True)
    text = repr("4 2" if method == "is_correct" else RIGHT)
    assert caught.value.__notes__ == [
        f"`{method}` of the task 'arithmetic' was called with {text} for the problem "
        f"{PROBLEM.id!r}."
    ]


def test_a_completion_is_written_out_for_an_error_alone():
    class Text(str):
        def __repr__(self):
            raise NotImplementedError

    assert call_task(Arithmetic(), "extract_answer", "p", Text(RIGHT)) == "4 2"


MARBLES = Problem(id="m", question="Ada has 36 marbles and 36 more?", answer="72")
SAME = Problem(id="s", question="Of 72 marbles none is lost. How many?", answer="72")
CQA = CommonsenseQA()
BARKS = CQA.make_problem(
    {"question": "Who barks?", "choices": ["cat", "dog"], "answer": "b"}, "q"
)
MARKED = " The dog barks. Therefore, the answer is dog (b)."


@pytest.mark.parametrize(
    ("task", "problem", "completion", "copied"),
    [
        (Doubling(), MARBLES, " The answer is 72.", True),
        (Doubling(), MARBLES, "<think>\nThe answer is 72.</think> 36 + 36 = 72.", True),
        (Doubling(), MARBLES, " 36 + 36 = 72. The answer is 72.", False),
        (Doubling(), MARBLES, " She has 36 twice. The answer is 72.", False),
        (Doubling(), MARBLES, " The answer is 71. No, the answer is 72.", False),
        (GSM8K(), MARBLES, "#### 72", True),
        (GSM8K(), MARBLES, " 1. Ada has 72 marbles.\n#### 72", True),
        (GSM8K(), MARBLES, " Ada has 36+36=<<36+36=72>>72.\n#### 72", False),
        (GSM8K(), MARBLES, " Ada has 36 marbles.\nMore: 72.\n#### 72", False),
        (GSM8K(), SAME, " There are 72 marbles.\nAll stay.\n#### 72", False),
        (GSM8K(), SAME, "#### 72", True),
        (WordProblems(), MARBLES, " 36 plums x 2 = 72. The answer is 72.", False),
        (WordProblems(), MARBLES, " She has 72 of them. The answer is 72.", True),
        (CQA, BARKS, MARKED, False),
        (CQA, BARKS, " It is (b). Dogs bark. Therefore, the answer is (b).", True),
        (CQA, BARKS, MARKED[len(" The dog barks.") :], True),
        (TASK, PROBLEM, "4 2", True),
        (TASK, PROBLEM, RIGHT, False),
    ],
)
def test_an_answer_before_any_step_is_found(task, problem, completion, copied):
    assert answers_at_once(task, problem, completion) is copied
