import pytest

from star_keras import tasks
from star_keras.outer_loop.prompts import PromptBuilder


def test_unknown_tasks_are_listed():
    with pytest.raises(ValueError, match="arithmetic.*commonsense_qa.*'chess'"):
        tasks.get("chess")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "arithmetic",
            '{"question": "1 2 + 3 4", "answer": "4 6", "rationale": "4 6"}',
        ),
        ("gsm8k", '{"question": "2+2?", "answer": 4, "rationale": "It is 4."}'),
        (
            "commonsense_qa",
            '{"question": "Who barks?", "choices": ["cat", "dog"], "answer": "b", '
            '"rationale": "Dogs bark."}',
        ),
    ],
)
def test_a_prompts_file_replaces_the_tasks_own_examples(tmp_path, name, line):
    path = tmp_path / "prompts.jsonl"
    path.write_text(line + "\n")
    task = tasks.get(name, prompts_file=path)
    (example,) = task.few_shot_examples
    for hint in (False, True):
        prompt = PromptBuilder(task).prefix(hint)
        assert prompt == (
            task.format_question(example.problem, hint=hint)
            + task.format_response(example.rationale, example.problem)
            + "\n\n"
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "2+2?", "answer": 4}', "line 1: .*no `rationale`"),
        ('{"question": "2+2?", "answer": "x", "rationale": "4"}', "line 1: .*number"),
    ],
)
def test_what_is_no_worked_example_is_refused(tmp_path, line, message):
    path = tmp_path / "prompts.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=message):
        tasks.get("gsm8k", prompts_file=path)


def test_an_example_that_does_not_grade_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"question": "1 + 1", "answer": "two", "rationale": "1"}\n')
    with pytest.raises(ValueError, match="'example-1' .* not read as .*'two'"):
        tasks.get("arithmetic", prompts_file=path)
