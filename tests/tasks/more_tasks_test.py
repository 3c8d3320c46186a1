"""MATH, multiple choice and yes or no: records of the Hub, read and graded."""

import json

import pytest

from star_keras import tasks
from star_keras.outer_loop.problems import checked_problems
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks import Problem
from star_keras.tasks.checks import check_example
from star_keras.tasks.grading import answers_at_once, grade
from star_keras.tasks.latex import last_boxed, plain_latex

NAMES = ("math", "multiple_choice", "yes_no")
RECORDS = {
    "math": {"problem": "Is $1+1$ $2$?", "solution": r"So $\boxed{2}$."},
    "multiple_choice": {"question": "q", "choices": ["a", "b"], "answer": "b"},
    "yes_no": {"question": "q", "answer": True},
}


@pytest.fixture
def make_task(tmp_path):
    def make(name, *records, **kwargs):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(
            "".join(json.dumps(r) + "\n" for r in records or [RECORDS[name]])
        )
        return tasks.get(name, train_path=path, eval_path=path, **kwargs)

    return make


@pytest.mark.parametrize("name", NAMES)
def test_worked_examples_are_right_and_hints_show_the_answer(make_task, name):
    task = make_task(name)
    assert len(task.few_shot_examples) >= 5
    assert len({example.problem.answer for example in task.few_shot_examples}) > 1
    for example in task.few_shot_examples:
        check_example(task, example)
        response = task.format_response(example.rationale, example.problem)
        assert not answers_at_once(task, example.problem, response)
        plain, hinted = (
            task.format_question(example.problem, hint=hint) for hint in (False, True)
        )
        assert len(hinted) > len(plain)
    prompt = PromptBuilder(task).prefix()
    assert all(example.rationale in prompt for example in task.few_shot_examples)


@pytest.mark.parametrize("name", NAMES)
def test_lines_with_a_rationale_replace_the_worked_examples(make_task, name):
    record = RECORDS[name]
    shown = {**record, "id": "shown", "rationale": "One step."}
    task = make_task(name, record, shown)
    (example,) = task.few_shot_examples
    assert example.rationale == "One step."
    assert len(checked_problems(task, "train")) == 1


# === MATH ===


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
def test_records_of_math_that_are_read(make_task, record, class_by, expected):
    (problem,) = checked_problems(make_task("math", record, class_by=class_by), "train")
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
def test_records_of_math_that_are_refused(make_task, record, message):
    with pytest.raises(ValueError, match=message):
        make_task("math", record).problems("train")


def test_classes_of_math_are_checked(make_task):
    with pytest.raises(ValueError, match="`class_by`.*'level', 'subject', 'both'"):
        make_task("math", class_by="topic")


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
def test_answers_of_math_are_read(make_task, completion, strict, flexible):
    task = make_task("math")
    problem = Problem(id="half", question="q", answer=r"\frac{1}{2}")
    assert grade(task, problem, completion).verdict == strict
    assert task.extract_answer_flexible(completion) == flexible


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{a{b}c} d}", "a{b}c"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed 5.", "5"),
        (r"\boxed\pi", r"\pi"),
        (r"\boxed{1} and \boxed{2", None),
        (r"\boxed{ }", None),
        ("no box", None),
    ],
)
def test_the_content_of_the_last_box(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (r"$\left(3, \dfrac{1}{2}\right)$.", r"(3,\frac{1}{2})"),
        (r"2\pi r", r"2\pi r"),
        (r"2 \pi\,r", r"2\pi r"),
        (r"\$18.90", r"\$18.90"),
        (r"\leftarrow", r"\leftarrow"),
        (r"\begin{pmatrix}1 \\ 2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\( 1{,}000 \)", "1{,}000"),
    ],
)
def test_latex_is_written_alike(text, plain):
    assert plain_latex(text) == plain


# === Multiple choice ===


@pytest.mark.parametrize("labels", ["ABCD", "1234", "wxyz"])
def test_a_choice_of_any_label_is_a_letter(make_task, labels):
    choices = {"text": ["ice", "fire", "sand", "fog"], "label": list(labels)}
    record = {"id": "Mercury_1", "question": "What burns?", "choices": choices}
    task = make_task("multiple_choice", {**record, "answerKey": labels[1]})
    (problem,) = checked_problems(task, "train")
    assert (problem.id, problem.answer) == ("Mercury_1", "b")
    right = task.format_response("It is hot.", problem)
    assert right == " It is hot. Therefore, the answer is fire (b)."
    assert grade(task, problem, right) == ("b", "correct", "")
    assert "(b) fire (CORRECT)\n" in task.format_question(problem, hint=True)


def test_columns_of_other_data_sets_are_named(make_task):
    record = {"question_stem": "Who barks?", "options": ["cat", "dog"], "key": 1}
    task = make_task(
        "multiple_choice",
        {**record, "topic": "animals"},
        question_field="question_stem",
        answer_field="key",
        choices_field="options",
        class_field="topic",
    )
    (problem,) = checked_problems(task, "eval")
    assert (problem.answer, problem.problem_class) == ("b", "animals")


# === Yes or no ===


@pytest.mark.parametrize(
    ("value", "answer"),
    [(True, "yes"), (False, "no"), ("Yes.", "yes"), ("FALSE", "no"), (1, "yes")]
    + [(0, "no"), ("0", "no")],
)
def test_the_answer_of_a_record_is_yes_or_no(make_task, value, answer):
    (problem,) = checked_problems(
        make_task("yes_no", {"question": "q", "answer": value}), "train"
    )
    assert problem.answer == answer


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("maybe", "line 1: .*`answer`.*yes, no, true or false.*'maybe'"),
        (2, "line 1: .*`answer`.*yes, no, true or false.*answer=2"),
        ("", "line 1: .*`answer`.*not blank"),
        (None, "line 1: .*`answer`.*not blank"),
        ([True], r"line 1: .*`answer`.*\[True\]"),
    ],
)
def test_what_is_neither_yes_nor_no_is_refused(make_task, value, message):
    with pytest.raises(ValueError, match=message):
        make_task("yes_no", {"question": "q", "answer": value}).problems("train")


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
def test_yes_and_no_are_read(make_task, completion, strict, flexible):
    task = make_task("yes_no")
    assert task.extract_answer(completion) == strict
    assert task.extract_answer_flexible(completion) == flexible
