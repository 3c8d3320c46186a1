import sys

import pytest

from experiments import task_settings
from star_keras import tasks
from star_keras.outer_loop.problems import checked_problems, describe_problems
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks import Problem, math_verifier
from star_keras.tasks.checkers import CHECKERS
from star_keras.tasks.grading import fault_of, grade
from star_keras.testing import Doubling

DOGS = Problem(id="dogs", question="Who barks?", answer="dog")


def fault(checker, answer, expected):
    task = Doubling()
    task.checker = CHECKERS[checker]
    return fault_of(task, answer, Problem(id="p", question="q", answer=expected))


@pytest.mark.parametrize(
    ("checker", "answer", "expected"),
    [
        ("exact", "a, b", "a, b"),
        ("numeric", "$1,080.50", "1080.5"),
        ("numeric", r"\frac{14}{6}", "7/3"),
        ("math", r"\frac{1}{2}", "0.5"),
        ("math", r"so it is $\boxed{\dfrac{\pi}{3}}$", r"\frac{\pi}3"),
        ("math", "(x + 1)^2", "x^2 + 2x + 1"),
        ("math", r"\left( 3, 4 \right)", "(3,4)"),
        ("math", "Evelyn", r"\text{Evelyn}"),
        ("math", "6:00 pm", r"\text{6:00 pm}"),
        ("math", r"\text{A, B}", "A, B"),
        ("math", "5", r"\text{5 apples}"),
        ("math", r"\text{-1,000 square feet}", r"-1000\text{ ft}^2"),
        ("math", "6 - 5 i", "6-5i"),
        ("math", "204_{(5)}", "204_5"),
        ("math", "101_{10}", "101"),
        ("math", "101", "101_{2}"),
        ("math", "x_{1}=2", "x_1=2"),
        ("math", r"\log_{2} 8", "3"),
        ("math", r"\left\{2, 1\right\}", r"\{1,2\}"),
        ("math", "2, 1", r"\{1,2\}"),
        ("math", "(1,2),(3,4)", r"\{(1,2),(3,4)\}"),
        ("math", r"\{3\} \cup [1, 2)", r"[1,2)\cup\{3\}"),
        ("math", "3 cm", "3"),
        ("math", "3", r"3\text{ cm}^2"),
        ("math", r"3\text{ centimeters}", r"3\text{ cm}"),
        ("math", r"16\text{ square feet}", r"16\text{ ft}^2"),
        ("math", r"5\%", "5"),
        ("math", "1 1/2", r"\frac{3}{2}"),
        ("math", "-2.5", "-2 1 / 2"),
        ("math", "1 000/3", r"\frac{1000}{3}"),
        ("math", r"10\,000 000", "10000000"),
        ("math", r"\frac 1 2", "0.5"),
        ("math", "x^2 3", "3x^2"),
        ("math", "0.05", r"5\%"),
        ("choice", "(B)", "b"),
        ("choice", "b) dog", "B"),
        ("choice", "dog (b)", "(b)"),
        ("choice", "3.", "3"),
        ("choice", "- b) dog", "b"),
        ("choice", "...b", "B"),
        ("choice", "B)21.5", "b"),
        ("choice", "B:12", "b"),
        ("choice", "B.12", "b"),
        ("choice", "1)5", "1"),
        ("set", "Blue, red and green", "red, green, blue"),
        ("set", r"{1,2,2}", "2; 1.0"),
    ],
)
def test_answers_that_are_the_same(checker, answer, expected):
    assert fault(checker, answer, expected) == ""


@pytest.mark.parametrize(
    "pair",
    [("7", "8"), ("5", "500"), ("-3", "3"), ("0", "1"), ("123456789", "123456788")],
)
def test_different_whole_numbers_differ_with_and_without_math_verify(pair, monkeypatch):
    assert math_verifier.equal(*pair) is False
    monkeypatch.setattr(math_verifier, "equal", None)
    assert fault("math", *pair)


@pytest.mark.parametrize(
    ("checker", "answer", "expected", "reason"),
    [
        ("exact", "Dog", "dog", "'Dog' is not 'dog'"),
        ("numeric", "3", "4", "'3' is not '4'"),
        ("numeric", "three", "3", "'three' is no number"),
        ("numeric", "3", "a few", "'a few' is no number"),
        ("math", "0.333", r"\frac{1}{3}", r"'0.333' is not '\\frac{1}{3}'"),
        ("math", "neve", r"\text{even}", r"'neve' is not '\\text{even}'"),
        ("math", "?", "5", "math-verify cannot compare '?' with '5'"),
        ("math", "100000000!", "3", "math-verify cannot compare '100000000!' with '3'"),
        ("math", "204_5", "204_7", "'204_5' is not '204_7'"),
        ("math", "101_{10}", "101_2", "'101_{10}' is not '101_2'"),
        ("math", "3A_{11}", "3A_{16}", "'3A_{11}' is not '3A_{16}'"),
        ("math", "(1,2)", r"\{1,2\}", r"'(1,2)' is not '\\{1,2\\}'"),
        ("math", r"\{1,2\}", r"[1,2]", r"'\\{1,2\\}' is not '[1,2]'"),
        ("math", "3 m", r"3\text{ cm}", r"'3 m' is not '3\\text{ cm}'"),
        ("math", "3 inches", "3 ft", "'3 inches' is not '3 ft'"),
        ("math", r"\text{5 cm}", "5 mm", r"'\\text{5 cm}' is not '5 mm'"),
        ("math", "6", r"\text{6:00 pm}", r"'6' is not '\\text{6:00 pm}'"),
        ("math", "7", r"\text{7 or 8}", r"'7' is not '\\text{7 or 8}'"),
        ("math", "5.5", "1 1/2", "'5.5' is not '1 1/2'"),
        ("math", "2 3", "23", "'2 3' is not '23'"),
        ("math", "23 4", "2 34", "'23 4' is not '2 34'"),
        ("math", "1 0000", "10000", "'1 0000' is not '10000'"),
        ("choice", "a", "b", "'a' is not 'b'"),
        ("choice", "(A) or (B)", "b", "'(A) or (B)' has several labels of a choice"),
        ("math", "2, 3", "2", "'2, 3' is not '2'"),
        ("choice", "dogs bark", "b", "'dogs bark' has no label of a choice"),
        ("choice", "1.5", "1", "'1.5' has no label of a choice"),
        ("choice", "-1", "1", "'-1' has no label of a choice"),
        ("choice", "(\u22121)", "1", "'(\u22121)' has no label of a choice"),
        ("choice", "1:30", "1", "'1:30' has no label of a choice"),
        ("set", "red, blue", "blue, green", "lacks 'green' and adds 'red'"),
        ("exact", "x" * 200, "y", f"'{'x' * 79} is not 'y'"),
    ],
)
def test_what_is_wrong_is_said_in_limited_time(checker, answer, expected, reason):
    assert fault(checker, answer, expected) == reason


@pytest.fixture
def make_task(tmp_path, monkeypatch):
    """The task of `tasks.get`, with a file of the user's own checkers at hand."""
    (tmp_path / "lines.jsonl").write_text('{"question": "q?", "answer": "dog"}\n')
    (tmp_path / "own_checkers.py").write_text(
        "number = 3\n"
        "def same_start(answer, problem):\n"
        "    return answer[0] == problem.answer[0] or f'{answer} starts wrong'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda **kwargs: tasks.get(
        "jsonl", train_path="lines.jsonl", eval_path="lines.jsonl", **kwargs
    )
    sys.modules.pop("own_checkers", None)


def test_a_checker_of_the_users_own_grades(make_task):
    task = make_task(checker="own_checkers:same_start")
    assert checked_problems(task, "train")
    assert grade(task, DOGS, "The answer is d.") == ("d", "correct", "")
    wrong = ("cat", "incorrect", "cat starts wrong")
    assert grade(task, DOGS, "The answer is cat.") == wrong


@pytest.mark.parametrize(
    ("checker", "message"),
    [
        ("equal", "`checker`.*'choice', 'exact'.*package.module:name.*'equal'"),
        ("nowhere:same", "`checker`.*import failed: No module named 'nowhere'"),
        ("own_checkers:other", "`checker`.*import failed.*'other'"),
        ("own_checkers:number", "`checker`.*It is 3, and not callable"),
        (3, "`checker`.*checker=3"),
    ],
)
def test_what_is_no_checker_is_refused(make_task, checker, message):
    with pytest.raises(ValueError, match=message):
        make_task(checker=checker)


def test_an_answer_that_a_checker_cannot_read_is_refused_at_the_start(make_task):
    with pytest.raises(ValueError, match="'train-1'.*can never be right.*no number"):
        checked_problems(make_task(checker="numeric"), "train")


def test_what_a_checker_returns_is_checked(make_task):
    for result in (None, "", " ", 1, "\ud800"):
        task = make_task(checker=lambda *_, result=result: result)
        with pytest.raises(ValueError, match="`checker`.*True.*'cat'.*returned"):
            fault_of(task, "cat", DOGS)


def test_an_error_of_a_checker_names_the_problem(make_task):
    task = make_task(checker=lambda answer, problem: {}[answer])
    with pytest.raises(KeyError) as error:
        fault_of(task, "cat", DOGS)
    assert "id='dogs'" in error.value.__notes__[0]


def test_another_checker_is_another_configuration(make_task):
    descriptions = []
    for checker in (None, "exact", "set", "own_checkers:same_start"):
        task = make_task(checker=checker)
        problems = {"train": task.problems("train")}
        descriptions.append(str(describe_problems(problems, PromptBuilder(task))))
    assert len(set(descriptions)) == 4
    assert "0x" not in "".join(descriptions)


def test_the_flag_reaches_every_task():
    for name in ("arithmetic", "word_problems"):
        task = task_settings.TaskSettings(task=name, checker="exact").make()
        assert task.checker is CHECKERS["exact"]
    with pytest.raises(ValueError, match="`checker`"):
        task_settings.TaskSettings(checker="equal").make()
