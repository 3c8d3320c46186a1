"""Answers to lines of standard input."""

import json

from tests import forks

FLAGS = ("--max_new_tokens=80", "--digits=1", "--eval_problems=3", "--nofew_shot")


def answers(text, *flags):
    return forks.run("generate_from_text", text, *flags)


def test_questions_of_a_task_are_answered_and_graded():
    lines = ["3 + 4", json.dumps({"question": "3 + 4", "answer": "7"}), ""]
    lines.append(json.dumps({"question": "3 + 4", "answer": "8"}))
    done = answers("\n".join(lines), "--task=arithmetic", *FLAGS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 + 4 , C: 0") >= 3
    assert done.stdout.count("[correct]") == 2
    assert done.stdout.count("[incorrect: expected 8]") == 1


def test_lines_without_a_task_are_prompts():
    done = answers("Input:\n\n3 + 4", "--max_new_tokens=5")
    # The empty line.
    assert done.returncode == 1
    assert done.stderr.count("The line is empty") == 1
    assert len(done.stdout.splitlines()) >= 2


def test_wrong_lines_are_named_and_other_lines_are_answered():
    deep = '{"question": ' + "[" * 100_000
    wrong = ['{"question": "3 + 4"', '{"question": "3 + 4"}', deep, "3 \udcff", "{}"]
    wrong.append('{"question": "\\ud83d", "answer": "7"}')
    done = answers("\n".join([*wrong, "3 + 4"]), "--task=arithmetic", *FLAGS)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("line ")]
    words = ["Expecting", "answer", "recursion", "not UTF-8", "question", "surrogate"]
    for number, (line, word) in enumerate(zip(lines, words, strict=True), start=1):
        assert line.startswith(f"line {number}: ") and word in line
    assert "3 + 4 , C: 0" in done.stdout


def test_a_line_without_a_task_keeps_its_blanks():
    done = forks.run("generate_lines")
    assert done.returncode == 0, done.stderr
    plain, chat = json.loads(done.stdout)
    assert plain == ["  a = 1 ", "\tb", " "]
    assert chat == ["a = 1", "b"]


def test_an_instruct_model_gets_the_earlier_turns_in_a_terminal():
    done = forks.run("generate_conversation")
    assert done.returncode == 0, done.stderr
    remembered, alone = json.loads(done.stdout)
    assert remembered == [
        "<user>Hi<end><assistant>",
        "<user>Hi<end><assistant>Hello< end><end><user>Again<end><assistant>",
        "A new conversation begins.",
        "<user>New<end><assistant>",
    ]
    assert alone[1] == "<user>Again<end><assistant>"
    assert alone[2].startswith("The line is empty")
