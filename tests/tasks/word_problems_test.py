import itertools
import re

import pytest

from star_keras import tasks
from star_keras.tasks.equations import find_equations
from star_keras.tasks.grading import grade
from star_keras.tasks.task_validation import check_example, check_problem
from star_keras.tasks.word_problems import WordProblems, _templates

TASK = WordProblems(train_problems=600, eval_problems=60)


def wording(question):
    """A question without names, nouns and numbers: the words of its template."""
    return re.sub(r"\d+", "#", question)


@pytest.mark.parametrize("split, count", [("train", 600), ("eval", 60)])
def test_problems_are_distinct_and_each_is_right_by_its_own_response(split, count):
    problems = TASK.problems(split)
    assert len(problems) == 3 * count
    assert len({p.id for p in problems}) == len(problems)
    assert len({p.question for p in problems}) == len(problems)
    for problem in problems:
        check_problem(TASK, problem)
        assert not re.search(r"[\[\]{}|]", problem.question)
        assert problem.question.endswith("?")
        assert 0 < int(problem.answer) <= 2000
    classes = [p.problem_class for p in problems]
    assert {c: classes.count(c) for c in classes} == dict.fromkeys(
        ["1 step", "2 steps", "3 steps"], count
    )


def test_train_and_held_out_problems_are_of_different_templates():
    texts = {
        split: {t["text"] for t in _templates() if t["split"] == split}
        for split in TASK.splits
    }
    assert not texts["train"] & texts["eval"]
    assert len(texts["train"]) >= 78
    assert len(texts["eval"]) >= 38
    openings = {
        split: {wording(p.question) for p in TASK.problems(split)}
        for split in TASK.splits
    }
    assert not openings["train"] & openings["eval"]


@pytest.mark.parametrize(
    "template", _templates(), ids=lambda template: template["text"][:40]
)
def test_each_template_uses_all_its_numbers_and_steps(template):
    numbers, steps = template["numbers"], template["steps"]
    for number in numbers:
        assert f"{{{number}}}" in template["text"]
        assert any(number in step for step in steps)
    for result in "xy"[: len(steps) - 1]:
        assert any(result in step for step in steps[1:])


def brute_force(problem):
    """Whether its answer is a value of its numbers, by at most `steps` operations."""
    numbers = [int(n) for n in re.findall(r"\d+", problem.question)]
    numbers += [2] if re.search("twice|double|equally", problem.question) else []
    reached, answer = {(n,) for n in numbers}, int(problem.answer)
    for _ in range(int(problem.problem_class[0])):
        reached = {
            (*path, value)
            for path in reached
            for a, b in itertools.permutations([*numbers, *path], 2)
            for value in (a + b, a - b, a * b, a // b if b and a % b == 0 else 0)
        }
    return answer in {path[-1] for path in reached}


def test_answers_are_reached_from_the_numbers_in_the_question():
    for problem in TASK.problems("train")[::60] + TASK.problems("eval")[::12]:
        if problem.problem_class != "3 steps":
            assert brute_force(problem), problem


def test_worked_examples_have_all_classes_and_true_equations():
    counts = []
    for example in TASK.few_shot_examples:
        check_example(TASK, example)
        response = TASK.format_response(example.rationale, example.problem)
        assert grade(TASK, example.problem, response, check_working=True) == (
            example.problem.answer,
            "correct",
            "",
        )
        counts.append(len(find_equations(response)))
    assert counts == [1] * 4 + [2] * 4 + [3] * 4
    shown = {example.problem.question for example in TASK.few_shot_examples}
    assert not shown & {p.question for s in TASK.splits for p in TASK.problems(s)}


@pytest.mark.parametrize("steps", [[1], [2], [3, 1]])
def test_worked_examples_have_the_tasks_numbers_of_steps_and_all_operations(steps):
    examples = WordProblems(steps).few_shot_examples
    classes = {example.problem.problem_class for example in examples}
    assert classes == {p.problem_class for p in WordProblems(steps).problems("eval")}
    assert len(examples) == 4 * len(steps)
    text = " ".join(example.rationale for example in examples)
    assert set(re.findall(r" ([-+*/]) ", text)) == {*"+-*/"}


def test_the_seed_decides_and_more_problems_begin_with_the_same():
    more = WordProblems(train_problems=700, eval_problems=1, steps=[2])
    same = [p for p in TASK.problems("train") if p.problem_class == "2 steps"]
    assert more.problems("train")[:600] == same
    other = WordProblems(train_problems=600, eval_problems=1, steps=[2], seed=1)
    assert len(set(other.problems("train")) & set(same)) < 60


@pytest.mark.parametrize(
    "completion, strict, flexible",
    [
        (" 12 + 30 = 42. The answer is 42.", "42", "42"),
        (" The answer is 1,042", "1042", "1042"),
        (" The answer is $42.\n\nNext", "42", "42"),
        (" The answer is 42 apples.", None, "42"),
        (" So it is 42.", None, "42"),
        (" The answer is 3. The answer is 42.", "42", "42"),
        (" I do not know", None, None),
    ],
)
def test_the_number_behind_the_marker_is_the_answer(completion, strict, flexible):
    assert TASK.extract_answer(completion) == strict
    assert TASK.extract_answer_flexible(completion) == flexible


def test_working_needs_true_equations():
    problem = tasks.Problem(id="a", question="?", answer="63")
    nonsense = " 13 cakes + 154 = 63. The answer is 63."
    assert grade(TASK, problem, nonsense) == ("63", "correct", "")
    graded = grade(TASK, problem, nonsense, check_working=True)
    assert graded == ("63", "invalid_working", "false_equation")


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"steps": []}, "steps"),
        ({"steps": [1, 1]}, "steps"),
        ({"steps": [4]}, "steps"),
        ({"steps": 1}, "steps"),
        ({"train_problems": -1}, "train_problems"),
        ({"eval_problems": 20_001}, "eval_problems"),
        ({"seed": "x"}, "seed"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        tasks.get("word_problems", **arguments)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_no_number_is_larger_than_the_largest(split):
    task = WordProblems(train_problems=400, eval_problems=100, largest_number=20)
    problems = task.problems(split)
    assert len({p.question for p in problems}) == 3 * task.counts[split]
    for problem in problems:
        numbers = re.findall(r"\d+", problem.question)
        assert max(map(int, [*numbers, problem.answer])) <= 20


def test_too_many_small_problems_are_an_error():
    task = WordProblems(steps=[3], eval_problems=5_000, largest_number=20)
    with pytest.raises(ValueError, match="largest_number.*eval_problems at most"):
        task.problems("eval")
