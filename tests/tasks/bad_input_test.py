r"""Bad input: it is read exactly as it is meant, or refused with what to do about it.

A row of the second kind holds texts of the error: the argument, the rule, the received
value and the remedy.
"""

import json
import math

import pytest

from star_keras import tasks
from star_keras.outer_loop.problems import checked_problems
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks import Problem
from star_keras.tasks.grading import grade

GSM8K = tasks.GSM8K()
EIGHTEEN = Problem(id="p", question="How many?", answer="18")


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        *(("#### 3 4", None), ("#### 3, 4", None), ("#### 2,5", None)),
        *(("#### 1.000,50", None), ("#### 1.000.000", None), ("#### 0,123", None)),
        *(("#### 1,00", None), ("#### 1,000,00", None), ("#### 1234,567", None)),
        *(("#### 1,000 000", None), ("#### 12 3456", None), ("#### ,5", None)),
        *(("#### 18 #### 18", "18"), ("#### 3 #### 18", "18"), ("18 ####", None)),
        *(("#### 1,000", "1000"), ("#### 1 000", "1000"), ("#### 1{,}000", "1000")),
        *((r"#### 1\,000", "1000"), ("#### 1\u202f000", "1000")),
        *(("#### 1\u00a0000.5", "1000.5"), ("#### 12,345,678", "12345678")),
        *(("#### −5", "-5"), ("#### –5", "-5"), ("#### -$5", "-5"), ("#### $-5", "-5")),
        *(("#### --5", None), ("#### -$-5", None), ("#### +5", "5"), ("#### -0", "0")),
        *(("#### 18%", "18"), (r"#### 18\%", "18"), ("#### $18$", "18")),
        *(("#### €18", "18"), (r"#### \$18", "18"), ("#### **18**.", "18")),
        *(("#### 1e3", "1000"), ("#### 1E-5", "0.00001"), ("#### 1e400", None)),
        *(("#### 3/4", "0.75"), ("#### 7/3", "7/3"), ("#### 14/6", "7/3")),
        *(("#### 2 1/2", "2.5"), ("#### -2 1/2", "-2.5"), ("#### ½", "0.5")),
        *(("#### 3½", "3.5"), ("#### −3/4", "-0.75"), ("#### 1/0", None)),
        *(("#### 1⁄2", "0.5"), ("#### 1'000", None), ("#### 5²", None)),
        *(("#### 3/4/5", None), ("#### 1 500/3", None), ("#### 5:30", None)),
        *((r"#### \boxed{18}", "18"), (r"#### $\frac{1}{2}$", "0.5")),
        *((r"#### \frac{7}{3}", "7/3"), (r"#### -\dfrac{3}{8}", "-0.375")),
        *((r"#### 5\frac{3}{4}", "5.75"), (r"#### \frac{1,000}{4}", "250")),
        *((r"#### \frac{1}{2}\%", "0.5"), (r"#### \frac{0.1}{3}", "1/30")),
        *((r"#### \sqrt{2}", None), (r"#### \sqrt{4}", "2"), (r"#### \pi", None)),
        *(("#### 2^{10}", "1024"), (r"#### x^2", None), (r"#### \frac{1}{0}", None)),
        *(("#### " + "9" * 201, None), ("#### ", None), ("#### ٣", None)),
        ("#### 18 apples", None),
    ],
)
def test_strict_numbers(completion, number):
    assert GSM8K.extract_answer(completion) == number
    assert grade(GSM8K, EIGHTEEN, completion)[0] == number


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        *(("- 18 apples", "18"), ("* 18 apples", "18"), ("-18 apples", "-18")),
        *(("10 - 20", "20"), ("10 – 20", "20"), ("10 -20", "20"), ("10-20", "20")),
        *(("(2) -20", "20"), ("50% -20", "20"), ("x-20", "20"), ("= -20", "-20")),
        *(("It is −5", "-5"), ("(-5)", "-5"), ("- $5", "5"), ("-$5", "-5")),
        *(("9{,}500", "9500"), ("1 000 men", "1000"), ("#### 1 000", "1000")),
        *(("5 100 times", "100"), ("1 250 men", "250"), ("2 100 000 men", "2100000")),
        *(("5 100 500 times", "500"), ("1\u00a0250 men", "1250"), ("-5 000", "-5000")),
        *(("3/4", "0.75"), ("3 / 4 of it", "0.75"), ("2 1/2 hours", "2.5")),
        *(("½ of it", "0.5"), ("3½ hours", "3.5"), ("-½", "-0.5"), ("7/3.", "7/3")),
        *((r"so \frac{3}{4} of it", "0.75"), (r"\boxed{\frac{3}{4}}", "0.75")),
        *((r"\boxed{18}", "18"), (r"\text{18 men}", "18"), (r"\sqrt{2}", None)),
        *(("2^3", "8"), ("x^2", None), ("1e3", "1000"), ("1e400", None)),
        *(("2,5", None), ("1.000,50", None), ("3, 4", "4"), ("at 5:30", None)),
        *(("12/5/2020", None), ("v1.5.2", None), ("in 2020 100 men", "100")),
        *(("$18\\%$", "18"), ("18€", "18"), ("It is 1,234,567.89!", "1234567.89")),
        *(("no", None), ("costs .5", "0.5"), ("1. 20 men", "20"), ("the 3rd", "3")),
        *(("It is $1'000", None), ("1’000", None), ("1_000", None), ("1٬000", None)),
        *(("√4", None), ("√(4)", None), ("5²", None), ("5×10³", None), ("5⁻¹", None)),
        *(("10 m²", "10"), ("the 5's", "5"), ("1⁄2", "0.5"), ("3 ∕ 4", "0.75")),
        *(("5\n3/4", "0.75"), ("1\n000", "0"), ("5\n/4", "4"), ("3/\n4", "4")),
    ],
)
def test_flexible_numbers(completion, number):
    assert GSM8K.extract_answer_flexible(completion) == number


@pytest.mark.parametrize(
    ("annotation", "holds"),
    [
        *(("<<3,4+1=35>>", False), ("<<1,000+1=1,001>>", True), ("<<1+1=2,0>>", False)),
        *(("<<1e3=1000>>", False), ("<<0x10=16>>", False), ("<<True=1>>", False)),
        *(("<<1 if 1 else 2=1>>", False), ("<<" + "(" * 300 + "=1>>", False)),
        *(("<<" + "-" * 5000 + "1=1>>", False), ("<<1\0=1>>", False), ("<<=>>", False)),
    ],
)
def test_annotations(annotation, holds):
    assert (GSM8K.working_fault(annotation, EIGHTEEN) == "") is holds


def read(tmp_path, content, task="jsonl", held_out=None):
    """The training problems of a file of bytes, or of records."""
    for name, part in (("train", content), ("eval", held_out or [GOOD])):
        if isinstance(part, list):
            lines = [p if isinstance(p, str) else json.dumps(p) for p in part]
            part = "".join(line + "\n" for line in lines).encode()
        (tmp_path / f"{name}.jsonl").write_bytes(part)
    paths = {s: tmp_path / f"{s}.jsonl" for s in ("train", "eval")}
    task = tasks.get(task, train_path=paths["train"], eval_path=paths["eval"])
    if held_out:
        checked_problems(task, "eval")
    PromptBuilder(task)
    problems = checked_problems(task, "train")
    for problem in problems:  # the response without and with a rationale
        for rationale in ("", "So."):
            response = task.format_response(rationale, problem)
            assert grade(task, problem, response) == (problem.answer, "correct", "")
    return problems


GOOD = {"question": "1+1?", "answer": "2"}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([GOOD | {"rationale": None}], ("train-1", "1+1?", "2", "")),
        ([GOOD | {"rationale": ""}], ("train-1", "1+1?", "2", "")),
        ([GOOD | {"rationale": " \n"}], ("train-1", "1+1?", "2", "")),
        ([GOOD | {"id": None, "class": None}], ("train-1", "1+1?", "2", "")),
        ([GOOD | {"id": " ", "class": ""}], ("train-1", "1+1?", "2", "")),
        ([GOOD | {"id": 7, "class": 3}], ("7", "1+1?", "2", "3")),
        ([GOOD | {"answer": 2}], ("train-1", "1+1?", "2", "")),
        ([GOOD | {"answer": 2.0}], ("train-1", "1+1?", "2", "")),
        ([GOOD | {"answer": 0.00001}], ("train-1", "1+1?", "0.00001", "")),
        ([GOOD | {"answer": -0.0}], ("train-1", "1+1?", "0", "")),
        (['{"question": "q", "answer": 0e-9}'], ("train-1", "q", "0", "")),
        (['{"question": 5, "answer": 1e16}'], ("train-1", "5", "1" + "0" * 16, "")),
        ([GOOD | {"answer": " St. Ives. "}], ("train-1", "1+1?", "St. Ives.", "")),
        ([GOOD | {"question": "😀"}], ("train-1", "😀", "2", "")),
        (b'\xef\xbb\xbf{"question": "q", "answer": "a"}', ("train-1", "q", "a", "")),
        (b'\n{"question": "q", "answer": "a"}\r\n', ("train-2", "q", "a", "")),
    ],
)
def test_lines_that_are_read(tmp_path, content, found):
    (problem,) = read(tmp_path, content)
    assert (
        problem.id,
        problem.question,
        problem.answer,
        problem.problem_class,
    ) == found


LINE_1 = "train.jsonl, line 1: "


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ([GOOD | {"answer": True}], ("`answer`", "text or a fin", "True", "quotes")),
        ([GOOD | {"answer": math.nan}], ("`answer`", "finite", "nan", "quotes")),
        ([GOOD | {"answer": -math.inf}], ("`answer`", "finite", "-inf", "quotes")),
        ([GOOD | {"answer": ["2"]}], ("`answer`", "text or a fin", "['2']", "quotes")),
        ([GOOD | {"answer": None}], ("`answer`", "not blank", "None", "leave the")),
        ([GOOD | {"answer": " "}], ("`answer`", "not blank", "' '", "leave the line")),
        ([GOOD | {"question": ""}], ("`question`", "not blank", "''", "leave the")),
        ([GOOD | {"question": "\u200b"}], ("`question`", "not blank", "200b", "leave")),
        ([GOOD | {"answer": " \ufeff "}], ("`answer`", "not blank", "feff", "leave")),
        ([GOOD | {"question": None}], ("`question`", "not blank", "None", "leave")),
        ([GOOD | {"question": {"a": 1}}], ("`question`", "text or", "{'a'", "quotes")),
        ([GOOD | {"id": False}], ("`id`", "text or a finite", "False", "quotes")),
        ([GOOD | {"id": ["x"]}], ("`id`", "text or a finite", "['x']", "quotes")),
        ([GOOD | {"class": {}}], ("`class`", "text or a finite", "{}", "quotes")),
        ([GOOD | {"rationale": ["x"]}], ("`rationale`", "a text", "['x']", "Leave")),
        ([GOOD | {"rationale": 5}], ("`rationale`", "a text", "5", "Leave it out")),
        ([{"question": "q"}], ("'answer'", "Expected", "['question']", "leave the")),
        ([{"answer": "a"}], ("'question'", "Expected", "['answer']", "leave the line")),
        (['{"answer": 1, "answer": 2}'], ("'answer'", "twice", "Received", "Correct")),
        ([[GOOD]], ("JSON object", "expected", "{'question'", "line of its own")),
        (["{"], ("not valid JSON", "Expected one JSON", "'{'", "Correct the line")),
        (["[" * 9999], ("not valid JSON", "Expected one JSON", "[[[", "Correct")),
        (['{"a": ' + "9" * 5000 + "}"], ("not valid JSON", "Exp", "999", "Correct")),
        (['{"answer": 1e-400}'], ("1e-400", "too small", "Expected", "in quotes")),
        (['{"answer": -12e400}'], ("-12e400", "too large", "Expected", "in quotes")),
        (['{"question": "\\ud83d"}'], ("surrogate", "Expected", "ud83d", "Correct")),
        (['{"\\ud83d": 1}'], ("surrogate", "Expected Unicode", "ud83d", "Correct")),
        (b'{"question": "\xe9"}', ("not UTF-8", "Expected UTF-8", "0xe9", "iconv")),
        ('{"question": 1}'.encode("utf-16"), ("UTF-16", "Expected UTF-8", "ff", "ic")),
        ('{"question": 1}'.encode("utf-16-be"), ("UTF-16", "Expected", "x00", "iconv")),
        (b"\x1f\x8b\x08gzip", ("not UTF-8", "Expected UTF-8", "0x8b", "Convert")),
    ],
)
def test_lines_that_are_refused_by_number(tmp_path, content, parts):
    with pytest.raises(ValueError) as caught:
        read(tmp_path, content)
    assert LINE_1 in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


WORKED = GOOD | {"rationale": "One and one."}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ([], ("train.jsonl", "no record", "Expected JSON lines", "Write")),
        ([WORKED], ("train.jsonl", "expected", "1 lines", "`rationale`", "Leave")),
        ([GOOD, WORKED | {"id": "train-1"}], ("line 2", "'train-1'", "line 1", "id")),
        (
            [GOOD | {"answer": "a\n\nb"}],
            ("'train-1'", "stop string", r"a\n\nb", "Take"),
        ),
        ([GOOD | {"answer": "x\nQ: y"}], ("'train-1'", "stop string", "nQ:", "Take")),
        (
            [GOOD | {"answer": "The answer is"}],
            ("'train-1'", "not read as its answer", "The answer is.", "Correct the"),
        ),
        ([GOOD, WORKED | {"rationale": "a\n\nb"}], ("'train-2'", "stop", "a", "Take")),
        (
            [GOOD, WORKED | {"answer": "The answer is x"}],
            ("Worked example 'train-2'", "not read as its", "Received", "Correct"),
        ),
    ],
)
def test_files_that_are_refused(tmp_path, content, parts):
    with pytest.raises(ValueError) as caught:
        read(tmp_path, content)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("task", ["jsonl", "gsm8k"])
def test_a_rationale_of_a_held_out_problem_is_no_worked_example(tmp_path, task):
    with pytest.raises(ValueError, match=r"eval\.jsonl, line 2: .*`rationale`.*Leave"):
        read(tmp_path, [GOOD], task, held_out=[GOOD, WORKED | {"question": "2?"}])


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ([GOOD, GOOD], ("line 2", "'1+1?'", "first in line 1", "Remove")),
        ([GOOD, GOOD | {"question": " 1+1? "}], ("line 2", "'1+1?'", "line 1", "Rem")),
        (
            [GOOD | {"id": 1}, GOOD | {"id": 1}],
            ("line 2", "id '1'", "line 1", "its id"),
        ),
        ([GOOD | {"answer": "#### 3 4"}], ("`answer`", "a number", "3 4", "leave")),
        ([GOOD | {"answer": "#### 2,5"}], ("`answer`", "a number", "2,5", "leave")),
        ([WORKED], ("`rationale`", "Expected problems", "One and", "`prompts_file`")),
    ],
)
def test_gsm8k_lines_that_are_refused(tmp_path, content, parts):
    with pytest.raises(ValueError) as caught:
        read(tmp_path, content, "gsm8k")
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("3/4", "0.75"),
        (1e16, "1" + "0" * 16),
        (0.00001, "0.00001"),
        (r"\frac73", "7/3"),
    ],
)
def test_gsm8k_answers_that_are_read(tmp_path, answer, number):
    (problem,) = read(tmp_path, [GOOD | {"answer": answer}], "gsm8k")
    assert problem.answer == number
