"""What holds for all tasks of files that come with worked examples."""

import pytest

from star_keras.outer_loop.problems import checked_problems
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks.checks import check_example
from star_keras.tasks.grading import answers_at_once

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
