import pytest
from hypothesis import given
from hypothesis import strategies as st

from star_keras.tasks.arithmetic import Arithmetic, make_problem, scratchpad

PAPER_EXAMPLE = """\
6 2 4 + 2 5 9 , C: 0
6 2 + 2 5 , 3 C: 1
6 + 2 , 8 3 C: 0
, 8 8 3 C: 0
0 8 8 3"""


def test_scratchpad_is_the_papers():
    assert scratchpad("624", "259") == PAPER_EXAMPLE


def operands():
    return st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            *[st.text("0123456789", min_size=n, max_size=n) for _ in range(2)]
        )
    )


@given(operands())
def test_scratchpad_adds_and_reads_back(pair):
    first, second = pair
    task = Arithmetic()
    problem = make_problem(first, second)
    assert int(problem.answer.replace(" ", "")) == int(first) + int(second)
    lines = scratchpad(first, second).splitlines()
    assert int(lines[-1].replace(" ", "")) == int(first) + int(second)
    assert len(lines) == len(first) + 2
    response = task.format_response(scratchpad(first, second), problem)
    assert task.extract_answer(response) == problem.answer
    assert task.working_fault(response, problem) == ""


def test_wrong_step_with_the_right_answer_is_invalid_working():
    task = Arithmetic()
    problem = make_problem("624", "259")
    response = task.format_response(
        PAPER_EXAMPLE.replace("6 + 2 , 8 3 C: 0", "6 + 2 , 7 3 C: 0"), problem
    )
    assert task.extract_answer(response) == problem.answer
    fault = "'6 + 2 , 7 3 C: 0' is not '6 + 2 , 8 3 C: 0'"
    assert task.working_fault(response, problem) == fault


@pytest.mark.parametrize(
    "completion", ["", "<scratch>\n1", "</scratch>\n", "a b", "12"]
)
def test_what_is_no_spaced_number_is_unparsed(completion):
    assert Arithmetic().extract_answer(completion) is None


def test_splits_and_examples_share_no_problem():
    task = Arithmetic(train_problems=500, eval_problems=100, examples_per_length=3)
    train, held_out, extra = (
        {p.id for p in task.problems(split)} for split in task.splits
    )
    shown = {e.problem.id for e in task.few_shot_examples}
    groups = [train, held_out, extra, shown]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert len(shown) == 15
    # 100 problems of one digit: 3 shown, a fifth held out, the rest trained.
    one_digit = [p for p in task.problems("train") if p.problem_class == "1_digit"]
    assert len(one_digit) == 77
    assert len(held_out) == 20 + 4 * 100
    assert {p.problem_class for p in task.problems("extrapolation")} == {
        f"{n}_digits" for n in range(6, 11)
    }


def test_same_seed_same_problems():
    sizes = {"train_problems": 50, "eval_problems": 10}
    first, second = Arithmetic(seed=3, **sizes), Arithmetic(seed=3, **sizes)
    other = Arithmetic(seed=4, **sizes)
    assert first.problems("train") == second.problems("train")
    assert first.problems("train") != other.problems("train")


def test_operands_have_the_asked_number_of_digits():
    task = Arithmetic(digits=[4], train_problems=50, eval_problems=5)
    for problem in task.problems("train"):
        first, second = problem.question.split(" + ")
        assert len(first.split()) == len(second.split()) == 4
        assert first[0] != "0"


def test_bad_digits_are_named():
    with pytest.raises(ValueError, match="`digits`.*at least 1.*digits=0"):
        Arithmetic(digits=[0, 1])
    with pytest.raises(ValueError, match="`extrapolation_digits`.*not trained on"):
        Arithmetic(digits=[5, 6], extrapolation_digits=[6])
    with pytest.raises(ValueError, match="`examples_per_length`.*at most 50"):
        Arithmetic(examples_per_length=80)
