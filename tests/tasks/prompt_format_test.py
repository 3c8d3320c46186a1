import json

import pytest

from star_keras import tasks
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks.grading import grade

FORMAT = {
    "question": "Problem: {question}\nSolution:",
    "hint": "Problem: {question}\nResult: {answer}\nSolution:",
    "answer_marker": "Result:",
    "stop": ["\nProblem:"],
}
EXAMPLE = {"question": "2 {answer}?", "answer": "4", "rationale": "2 + 2 = 4."}
RECORDS = {
    "gsm8k": EXAMPLE,
    "jsonl": EXAMPLE,
    "word_problems": EXAMPLE,
    "yes_no": {**EXAMPLE, "answer": "no"},
    "commonsense_qa": {**EXAMPLE, "choices": ["a cat", "a dog"], "answer": "b"},
    "multiple_choice": {**EXAMPLE, "choices": ["a cat", "a dog"], "answer": "b"},
}


@pytest.fixture
def make_task(tmp_path):
    def make(name, *lines, **kwargs):
        path = tmp_path / "prompts.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if name in ("jsonl", "math", "multiple_choice", "yes_no"):
            record = {**RECORDS.get(name, EXAMPLE), "rationale": None}
            train = tmp_path / "train.jsonl"
            train.write_text(json.dumps(record) + "\n")
            kwargs = {"train_path": train, "eval_path": train}
        return tasks.get(name, prompts_file=path, **kwargs)

    return make


@pytest.mark.parametrize("name", RECORDS)
def test_a_format_makes_prompts_and_is_read_again(make_task, name):
    task = make_task(name, {"format": FORMAT}, RECORDS[name])
    (example,) = task.few_shot_examples
    prompts = PromptBuilder(task)
    assert prompts.stop == ("\nProblem:",)
    prompt = prompts.build(example.problem)
    assert prompt.startswith("Problem: 2 {answer}?")  # a question is no format
    assert prompt.endswith("\nSolution:")
    assert "Q:" not in prompt and "A:" not in prompt
    assert prompts.build(example.problem, hint=True).count("Result:") == 3
    response = prompts.response("Hm.", example.problem)
    assert "Result:" in response and "answer is" not in response
    assert grade(task, example.problem, response).verdict == "correct"
    assert task.extract_answer(
        response.replace("Result:", "The answer is")
    ) is None or (
        name in ("commonsense_qa", "multiple_choice")  # any letter in brackets
    )
    if name != "gsm8k":
        assert "Result:" in task.system_text


def test_a_format_alone_keeps_the_worked_examples(make_task):
    before = tasks.get("word_problems").few_shot_examples
    task = make_task("word_problems", {"format": FORMAT})
    assert list(task.few_shot_examples) == list(before)
    assert PromptBuilder(task).prefix().count("\nSolution: ") == len(before)
    assert tasks.get("word_problems").question_format.startswith("Q:")


def test_a_marked_choice_needs_no_answer_in_the_hint(make_task):
    question = FORMAT["question"]
    parts = {"question": question, "hint": question, "stop": ["\n\n"]}
    record = RECORDS["multiple_choice"]
    task = make_task("multiple_choice", {"format": parts}, record)
    (example,) = task.few_shot_examples
    assert "(b) a dog (CORRECT)\nSolution:" in task.format_question(
        example.problem, hint=True
    )


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        ("gsm8k", [], "`format`.*an object"),
        ("gsm8k", {}, "`format`.*'question', 'hint', 'answer_marker'"),
        ("gsm8k", {"prompt": "x"}, "`format`.*object of some of"),
        ("math", {"answer_marker": "x"}, r"`format`.*\['question', 'hint', 'stop'\]"),
        ("arithmetic", {"answer_marker": "x"}, "`format`.*some of"),
        ("gsm8k", {"answer_marker": " "}, "`answer_marker`.*not blank"),
        ("gsm8k", {"answer_marker": "x "}, "`answer_marker`.*without blanks around"),
        ("gsm8k", {"answer_marker": 3}, "`answer_marker`.*a text"),
        ("gsm8k", {"stop": "x"}, "`stop`.*sequence of texts"),
        ("gsm8k", {"stop": ["x"]}, "`stop`.*beginning of the next question.*not end"),
        ("gsm8k", {"question": "P: {question}"}, "`question` and `hint`, or neither"),
        ("gsm8k", {"question": "P:"}, "`question`.*with .question. once"),
        ("gsm8k", {"question": "{question} {question}"}, "`question`.*once"),
        ("gsm8k", {"question": "{question} {answer}"}, "`question`.*nothing else"),
        ("gsm8k", {"question": "{question} {choices}"}, "`question`.*nothing else"),
        ("gsm8k", {"hint": "P: {question}"}, "`hint`.*{question} and {answer} once"),
    ],
)
def test_what_is_no_format_is_refused(make_task, name, parts, message):
    if isinstance(parts, dict) and "question" in parts and "neither" not in message:
        parts["hint"] = FORMAT["hint"]
    if isinstance(parts, dict) and "hint" in parts and "question" not in parts:
        parts["question"] = FORMAT["question"]
    with pytest.raises(ValueError, match=f"prompts.jsonl, line 1: .*{message}"):
        make_task(name, {"format": parts})


def test_a_question_that_no_stop_ends_is_refused(make_task):
    parts = {"question": FORMAT["question"], "hint": FORMAT["hint"]}
    with pytest.raises(ValueError, match=r"`stop`.*Problem.*\['\\nQ:'\]"):
        make_task("gsm8k", {"format": parts})
    assert make_task("word_problems", {"format": parts}).stop  # a blank line


def test_a_format_stands_on_a_line_of_its_own(make_task):
    with pytest.raises(ValueError, match="line 1: .*`format`.*a line of its own"):
        make_task("gsm8k", {"format": FORMAT, **EXAMPLE})


def test_worked_examples_are_checked_in_the_new_format(make_task):
    line = {**EXAMPLE, "rationale": "See.\nProblem: none."}
    with pytest.raises(ValueError, match="prompts.jsonl: Worked.*stop string.*Problem"):
        make_task("gsm8k", {"format": FORMAT}, line)
