"""What holds for all tasks of files that come with worked examples."""

import json

import pytest

from star_keras import tasks
from star_keras.outer_loop.problems import checked_problems
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks.grading import answers_at_once
from star_keras.tasks.task_validation import check_example

NAMES = ("math", "multiple_choice", "yes_no")
RECORDS = {
    "math": {"problem": "Is $1+1$ $2$?", "solution": r"So $\boxed{2}$."},
    "multiple_choice": {"question": "q", "choices": ["a", "b"], "answer": "b"},
    "yes_no": {"question": "q", "answer": True},
}


@pytest.mark.parametrize("name", NAMES)
def test_worked_examples_are_right_and_hints_show_the_answer(make_file_task, name):
    task = make_file_task(name, RECORDS[name])
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
def test_lines_with_a_rationale_replace_the_worked_examples(make_file_task, name):
    record = RECORDS[name]
    shown = {**record, "id": "shown", "rationale": "One step."}
    task = make_file_task(name, record, shown)
    (example,) = task.few_shot_examples
    assert example.rationale == "One step."
    assert len(checked_problems(task, "train")) == 1


ANSWERED = RECORDS | {
    "jsonl": {"question": "1 + 1?", "answer": 2},
    "gsm8k": {"question": "1 + 1?", "answer": "1 + 1 = 2.\n#### 2"},
    "commonsense_qa": {"question": "q", "choices": ["a", "b"], "answerKey": "A"},
}
ANSWERS = {"answer", "answerKey", "solution"}


@pytest.fixture(params=ANSWERED)
def unanswered(request, tmp_path):
    """The name of a task, a record, and files with and without answers."""
    record = ANSWERED[request.param]
    (field,) = ANSWERS & record.keys()
    text = "question" if "question" in record else "problem"
    bare = {k: v for k, v in record.items() if k != field}
    records = [
        record,
        {**bare, text: "One?"},
        {**record, text: "Two?", field: None},
        {**record, text: "Three?", field: " "},
    ]
    paths = [tmp_path / "some.jsonl", tmp_path / "all.jsonl"]
    for path, lines in zip(paths, (records, records[:1]), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return request.param, *paths


def test_training_problems_may_have_no_answer(unanswered):
    name, some, everything = unanswered
    task = tasks.get(name, train_path=some, eval_path=everything)
    problems = checked_problems(task, "train", needs_answers=False)
    by_question = {p.question.partition("?")[0]: p.answer for p in problems}
    assert len(problems) == 4
    assert [by_question[text] for text in ("One", "Two", "Three")] == [None] * 3
    known = tasks.get(name, train_path=everything, eval_path=everything)
    (answered,) = checked_problems(known, "train")
    assert answered in problems
    assert checked_problems(task, "eval") == checked_problems(known, "eval")
    # The same ids as with answers, and so the same samples.
    assert len({p.id for p in problems}) == 4


def test_records_without_the_column_of_the_answers_are_questions(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"q": "One?"}\n{"q": "Two?", "answer": "of another column"}\n')
    names = {"question_field": "q", "answer_field": "solution"}
    task = tasks.get("jsonl", train_path=path, eval_path=path, **names)
    assert [(p.question, p.answer) for p in task.questions("train")] == [
        ("One?", None),
        ("Two?", None),
    ]
    message = "`answer_field`. Expected one of the columns"
    with pytest.raises(ValueError, match=message):
        task.problems("train")
    # A worked example is no question alone.
    path.write_text('{"q": "One?", "answer": "2", "rationale": "One and one."}\n')
    task = tasks.get("jsonl", train_path=path, eval_path=path, **names)
    with pytest.raises(ValueError, match=message):
        task.questions("train")


def test_a_missing_answer_is_an_error_that_names_the_line(unanswered):
    name, some, everything = unanswered
    task = tasks.get(name, train_path=some, eval_path=everything)
    message = r"some\.jsonl, line 2: Missing 'answer'.*Add it.*--answers=majority"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            checked_problems(task, "train")
        task.questions("train")
    task = tasks.get(name, train_path=everything, eval_path=some)
    for needs_answers in (True, False):
        with pytest.raises(ValueError, match=message):
            checked_problems(task, "eval", needs_answers=needs_answers)
