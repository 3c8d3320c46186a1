"""Layouts of choices, arguments and own tasks: read as meant, or refused."""

import math
import re

import numpy as np
import pytest

from star_keras import tasks
from star_keras.outer_loop.problems import checked_problems
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks import FewShotExample, Problem, Task
from star_keras.tasks.grading import grade
from star_keras.tasks.task_validation import check_task
from star_keras.utils.json_lines import read_json_lines

CQA = tasks.CommonsenseQA()
DOG = ("Who barks?\nAnswer Choices:\n(a) cat\n(b) dog", "b")


def choices(labels, texts=("cat", "dog")):
    return {"label": list(labels), "text": list(texts)}


def pairs(labels, texts=("cat", "dog")):
    return [{"label": a, "text": b} for a, b in zip(labels, texts, strict=True)]


@pytest.mark.parametrize(
    "record",
    [
        {"choices": ["cat", "dog"], "answer": "b"},
        {"choices": ["cat", "dog"], "answer": "(B)."},
        {"choices": ["cat", "dog"], "answer": 1},
        {"choices": [" cat\n", "dog"], "answerKey": "B"},
        {"choices": ["cat", "dog"], "answer": "B", "answerKey": 1},
        {"choices": choices("AB"), "answerKey": "B"},
        {"choices": choices("12"), "answerKey": "2"},
        {"choices": choices([1, 2]), "answerKey": 2},
        {"choices": choices("01"), "answer": 1},
        {"choices": pairs("AB"), "answer": "b"},
        {"choices": pairs("12"), "answerKey": "2"},
        {"choices": pairs([1, 2]), "answerKey": 2.0},
        {"question": {"stem": "Who  barks?", "choices": pairs("AB")}, "answerKey": "B"},
        {"question": {"stem": "Who barks?", "choices": pairs("12")}, "answerKey": "2"},
        {"question": {"stem": "Who barks?", "choices": choices("AB")}, "answer": "B"},
        {"question": {"stem": "Who barks?", "choices": choices("12")}, "answer": 2},
    ],
)
def test_layouts_that_are_read(record):
    problem = CQA.make_problem({"question": "Who barks?"} | record, "d")
    assert (problem.question, problem.answer) == DOG
    for rationale in ("", "Dogs (a kind of wolf) do."):
        response = CQA.format_response(rationale, problem)
        assert grade(CQA, problem, response) == ("b", "correct", "")


@pytest.mark.parametrize(
    ("texts", "answer", "shown"),
    [
        (["vitamin (c)", "salt"], "a", "vitamin [c]"),
        (["salt", "( C ) and (a)"], "b", "[C] and [a]"),
        (["(b)", "(a)"], "a", "[b]"),
        (["the answer is (b)", "x"], "a", "the answer is [b]"),
        ([5, 6.0], "b", "6"),
        (["cat (CORRECT)", "dog"], "a", "cat [CORRECT]"),
        (["cat ( correct )", "dog"], "b", "dog"),
    ],
)
def test_a_letter_in_brackets_within_a_choice_is_not_the_answer(texts, answer, shown):
    record = {"question": "Which?", "choices": texts, "answer": answer}
    problem = CQA.make_problem(record, "d")
    response = CQA.format_response("So.", problem)
    assert response == f" So. Therefore, the answer is {shown} ({answer})."
    assert grade(CQA, problem, response) == (answer, "correct", "")
    assert "correct" not in re.findall(
        r"\((.*?)\)", CQA.format_question(problem).lower()
    )
    assert CQA.format_question(problem, hint=True).count("(CORRECT)") == 1


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        ({"choices": ["x"]}, ("`choices`", "2 to 26", "['x']", "Write")),
        ({"choices": []}, ("`choices`", "2 to 26", "[]", "Write")),
        ({"choices": ["x"] * 27}, ("`choices`", "2 to 26", "'x'", "Write")),
        ({"choices": "x, y"}, ("`choices`", "list of texts", "'x, y'", "Write")),
        ({"choices": ["x", None]}, ("`choice`", "not blank", "None", "leave the line")),
        ({"choices": ["x", True]}, ("`choice`", "text or a fin", "True", "quotes")),
        ({"choices": ["x", ["y"]]}, ("`choice`", "text or a fin", "['y']", "quotes")),
        ({"choices": ["x", {"text": 1}]}, ("`choices`", "objects", "'x'", "Write")),
        ({"choices": choices("A")}, ("`choices`", "same length", "'label'", "Write")),
        ({"choices": {"text": ["x", "y"]}}, ("`choices`", "two lists", "'x'", "Write")),
        ({"choices": choices("AA")}, ("`choices`", "different", "'A'", "Name each")),
        ({"answer": "c"}, ("`answer`", "labels ['a', 'b']", "'c'", "Correct")),
        ({"answer": 2}, ("`answer`", "integer from 0 to 1", "2", "Correct")),
        ({"answer": -1}, ("`answer`", "integer from 0 to 1", "-1", "Correct")),
        ({"answer": True}, ("`answer`", "text or a finite", "True", "quotes")),
        ({"answer": "dog"}, ("`answer`", "labels ['a', 'b']", "'dog'", "Correct")),
        ({"answer": "a", "answerKey": "b"}, ("`answer`", "same", "'a'", "Leave one")),
        ({"question": {"choices": pairs("AB")}}, ("'stem'", "Expected", "['ch", "Add")),
        ({"question": {"stem": "Who?"}}, ("`choices`", "list of texts", "None", "Wr")),
        ({"question": " "}, ("`question`", "not blank", "' '", "leave the line")),
    ],
)
def test_layouts_that_are_refused(record, parts):
    with pytest.raises(ValueError) as caught:
        CQA.make_problem(
            {"question": "Who barks?", "choices": ["cat", "dog"]} | record, "d"
        )
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("arithmetic", {"digits": "12"}, ("`digits`", "sequence of", "'12'")),
        ("arithmetic", {"digits": 6}, ("`digits`", "sequence of", "6")),
        ("arithmetic", {"digits": ()}, ("`digits`", "at least one", "()")),
        ("arithmetic", {"digits": ["a"]}, ("`digits`", "an integer", "'a'")),
        ("arithmetic", {"digits": [1.5]}, ("`digits`", "an integer", "1.5")),
        ("arithmetic", {"digits": [True]}, ("`digits`", "an integer", "True")),
        ("arithmetic", {"digits": [10**9]}, ("`digits`", "at most 100", "10000000")),
        ("arithmetic", {"digits": [2, 2]}, ("`digits`", "different", "[2, 2]", "once")),
        (
            "arithmetic",
            {"digits": [6], "extrapolation_digits": [6]},
            ("`extrapolation_digits`", "not trained on", "[6]", "Leave it out"),
        ),
        ("arithmetic", {"train_problems": 1.5}, ("`train_problems`", "integ", "1.5")),
        ("arithmetic", {"train_problems": "9"}, ("`train_problems`", "integ", "'9'")),
        ("arithmetic", {"train_problems": True}, ("`train_problems`", "integ", "True")),
        (
            "arithmetic",
            {"eval_problems": math.inf},
            ("`eval_problems`", "integ", "inf"),
        ),
        (
            "arithmetic",
            {"eval_problems": math.nan},
            ("`eval_problems`", "integ", "nan"),
        ),
        ("arithmetic", {"eval_problems": 10**9}, ("`eval_problems`", "at most", "100")),
        (
            "arithmetic",
            {"examples_per_length": 51},
            ("`examples_per_", "most 50", "51"),
        ),
        ("arithmetic", {"seed": 1.0}, ("`seed`", "integer", "1.0")),
        ("arithmetic", {"train_path": "x"}, ("`train_path`", "'arithmetic'", "Leave")),
        ("gsm8k", {"digits": [1]}, ("`digits`", "'gsm8k'", "[1]", "Leave it out")),
        ("gsm8k", {"validation_problems": -1}, ("`validation_", "at least 0", "-1")),
        ("gsm8k", {"validation_problems": "5"}, ("`validation_", "integer", "'5'")),
        ("gsm8k", {"train_path": ""}, ("`train_path`", "path of", "''")),
        ("gsm8k", {"train_path": 5}, ("`train_path`", "path of", "5")),
        ("gsm8k", {"train_path": "nowhere"}, ("`train_path`", "JSON lines", "correct")),
        ("gsm8k", {"data_dir": "nowhere"}, ("`data_dir`", "directory", "correct")),
        (
            "commonsense_qa",
            {"eval_path": "."},
            ("`eval_path`", "a file", "'.'", "corr"),
        ),
        ("jsonl", {"train_path": __file__}, ("`eval_path`", "needs", "None")),
        ("jsonl", {}, ("`train_path`", "needs", "None")),
        (
            "commonsense_qa",
            {"data_dir": ".", "train_path": __file__, "eval_path": __file__},
            ("`data_dir`", "`None` with train_path", "'.'", "Leave it out"),
        ),
        ("jsonl", {"train_path": "~/nowhere"}, ("`eval_path`", "needs", "None")),
        ("gsm8k", {"train_path": "~/nowhere"}, ("`train_path`", "JSON", "/nowhere")),
        ("gsm8k", {"prompts_file": "nowhere"}, ("`prompts_file`", "JSON", "correct")),
        ("gsm8k", {"prompts_file": 5}, ("`prompts_file`", "path of", "5")),
        ("chess", {}, ("`name`", "one of ['arithmetic'", "'chess'")),
        (["gsm8k"], {}, ("`name`", "one of ['arithmetic'", "['gsm8k']")),
        (None, {}, ("`name`", "one of ['arithmetic'", "None")),
    ],
)
def test_arguments_that_are_refused(name, arguments, parts):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        tasks.get(name, **arguments)
    for part in parts:
        assert part in str(caught.value)


def test_numbers_of_numpy_are_taken_as_what_they_are():
    plain = tasks.Arithmetic(digits=[6], train_problems=9, seed=3)
    numpy = tasks.Arithmetic(
        digits=np.array([6]), train_problems=np.int64(9), seed=np.int32(3)
    )
    for split in plain.splits:
        assert numpy.problems(split) == plain.problems(split)
    assert plain.extrapolation_digits == (7, 8, 9, 10, 11)
    assert tasks.Arithmetic().extrapolation_digits == (6, 7, 8, 9, 10)


@pytest.mark.parametrize("name", ["arithmetic", "commonsense_qa", "gsm8k"])
def test_an_unknown_split_is_refused(name):
    with pytest.raises(ValueError, match=r"`split`.*one of \['train'.*'dev'"):
        tasks.get(name).problems("dev")


@pytest.mark.parametrize(
    ("attributes", "parts"),
    [
        ({"stop": "\nQ:"}, ("`stop`", "sequence of texts", r"'\nQ:'", "Correct")),
        ({"stop": ("",)}, ("`stop`", "not empty", "('',)", "Correct the task")),
        ({"stop": ("\n", None)}, ("`stop`", "sequence of texts", "None", "Correct")),
        ({"stop": None}, ("`stop`", "sequence of texts", "None", "Correct")),
        ({"splits": "train"}, ("`splits`", "sequence of texts", "'train'", "Correct")),
        ({"name": None}, ("`name`", "not empty", "None", "Give the class")),
        ({"name": ""}, ("`name`", "not empty", "''", "Give the class")),
        ({"few_shot_examples": None}, ("`few_shot_examples`", "a seq", "None", "Corr")),
        ({"few_shot_examples": "ab"}, ("`few_shot_examples`", "a seq", "'ab'", "Corr")),
        ({"few_shot_examples": iter([])}, ("`few_shot_examples`", "a seq", "iterator")),
        ({"question_format": "Q:"}, ("`question_format`", "with {question}", "Q:")),
        ({"question_format": "{Question}"}, ("with {question}", "{Question}")),
        ({"question_format": None}, ("`question_format`", "with {question}", "None")),
        ({"hint_format": "{question}"}, ("with {question} and {answer}", "Correct")),
        ({"hint_format": "{answer}", "marks_hints": True}, ("with {question}",)),
    ],
)
def test_attributes_of_an_own_task_that_are_refused(attributes, parts):
    task = type("Mine", (Task,), {"name": "mine"} | attributes)()
    for check in (check_task, PromptBuilder, lambda t: checked_problems(t, "train")):
        with pytest.raises(ValueError) as caught:
            check(task)
        for part in parts:
            assert part in str(caught.value)


@pytest.mark.parametrize("task", ["arithmetic", None, tasks.GSM8K, 5])
def test_what_is_no_task_is_refused(task):
    for check in (PromptBuilder, lambda t: checked_problems(t, "train")):
        with pytest.raises(ValueError, match=r"`task`.*`star_keras\.tasks\.Task`.*get"):
            check(task)


GOOD = {"id": "p", "question": "1+1?", "answer": "2"}


@pytest.mark.parametrize(
    ("method", "value"),
    [
        *(("format_question", value) for value in (None, 5, b"Q:")),
        *(("format_response", value) for value in (None, ["2"])),
        *(("is_correct", value) for value in (None, "no", 1, [])),
        *(("extract_answer", value) for value in (2, False, b"2", ["2"])),
        *(("extract_answer_flexible", value) for value in (2, False)),
        *(("rationale_key", value) for value in (None, 5, ("a",))),
    ],
)
def test_what_an_own_task_returns_is_checked(method, value):
    problem = Problem(**GOOD)

    class Mine(Task):
        name = "mine"
        few_shot_examples = (FewShotExample(problem=problem, rationale="1 + 1 = 2."),)

        def problems(self, split):
            return [problem]

    setattr(Mine, method, lambda *args, **kwargs: value)
    message = rf"`{method}`. Expected .* of the task 'mine'.*{re.escape(repr(value))}"
    for check in (PromptBuilder, lambda task: checked_problems(task, "train")):
        with pytest.raises(ValueError, match=message):
            check(Mine())


@pytest.mark.parametrize("value", [None, 5, {}, [{"question": "q"}], "abc"])
def test_problems_of_an_own_task_are_checked(value):
    class Mine(Task):
        name = "mine"

        def problems(self, split):
            return value

    with pytest.raises(ValueError, match="`problems?`|no problems in 'train'"):
        checked_problems(Mine(), "train")


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"id": 5}, ("`id`", "text", "5", "leave it out")),
        ({"id": ""}, ("`id`", "not blank", "''", "leave it out")),
        ({"question": None}, ("`question`", "text", "None", "leave it out")),
        ({"question": "\ud83d"}, ("`question`", "surrogates", "ud83d", "leave it out")),
        ({"answer": 2}, ("`answer`", "text", "2", "leave it out")),
        ({"answer": None}, ("`answer`", "text in the", "'p'", "None")),
        ({"answer": np.float64(2)}, ("`answer`", "text", "2.0", "leave it out")),
        ({"answer": "\udcff"}, ("`answer`", "surrogates", "udcff", "leave it out")),
        ({"problem_class": None}, ("`problem_class`", "text", "None")),
        ({"problem_class": 3}, ("`problem_class`", "text", "3", "leave it out")),
        ({"answer": "2\n\n3"}, ("'p'", "stop string", r"2\n\n3", "Take it out")),
        ({"answer": " 2"}, ("'p'", "not read as its answer", "' 2'", "Correct")),
        ({"answer": "The answer is"}, ("'p'", "not read as its", "Received", "Corr")),
    ],
)
def test_own_problems_that_are_refused(fields, parts):
    class Mine(Task):
        name = "mine"

        def problems(self, split):
            return [Problem(**(GOOD | fields))]

        @property
        def few_shot_examples(self):
            return [FewShotExample(problem=Problem(**(GOOD | fields)), rationale="1.")]

    for check in (PromptBuilder, lambda task: checked_problems(task, "train")):
        with pytest.raises(ValueError) as caught:
            check(Mine())
        for part in parts:
            assert part in str(caught.value)


@pytest.mark.parametrize("rationale", ["", " ", None, ["x"], "\ud83d", "a\n\nb"])
def test_own_rationales_that_are_refused(rationale):
    class Mine(Task):
        name = "mine"

        @property
        def few_shot_examples(self):
            return [FewShotExample(problem=Problem(**GOOD), rationale=rationale)]

    with pytest.raises(ValueError, match=r"`rationale`|stop string"):
        PromptBuilder(Mine())


def test_paths_do_not_depend_on_the_folder_afterwards(tmp_path, monkeypatch):
    (tmp_path / "mine.jsonl").write_text('{"question": "1+1?", "answer": 2}\n')
    monkeypatch.chdir(tmp_path)
    task = tasks.get("gsm8k", train_path="mine.jsonl", eval_path="mine.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path))
    at_home = tasks.get("jsonl", train_path="~/mine.jsonl", eval_path="~/mine.jsonl")
    monkeypatch.chdir("/")
    assert [p.answer for p in task.problems("train")] == ["2"]
    assert [p.answer for p in at_home.problems("train")] == ["2"]


def test_own_files_with_two_equal_names_or_half_characters_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    for line in ('{"a": 1, "a": 2}', '{"a": "\\udcff"}', '{"a": "\\ud83d\\u0000"}'):
        path.write_text(line + "\n")
        with pytest.raises(ValueError, match=r"a\.jsonl, line 1: .*Correct"):
            read_json_lines(path, {"a"})
    path.write_text('{"a": "\\ud83d\\ude00", "b": NaN}\n')
    assert read_json_lines(path, {"a"})[0]["a"] == "😀"
