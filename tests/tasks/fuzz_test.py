"""Random input: readers answer exactly or not at all, and errors name the line."""

import fractions
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from star_keras import tasks
from star_keras.outer_loop.problems import checked_problems
from star_keras.tasks.arithmetic import make_problem
from star_keras.tasks.grading import grade
from star_keras.tasks.read_number import last_number, read_number

CHOICES = {"question": "q?", "choices": ["x", "y", "z"], "answer": "b"}
GRADERS = [
    (tasks.Arithmetic(), make_problem("15", "27")),
    (tasks.GSM8K(), tasks.GSM8K().make_problem({"question": "q", "answer": 18}, "")),
    (tasks.CommonsenseQA(), tasks.CommonsenseQA().make_problem(CHOICES, "p")),
    (
        tasks.YesNo(__file__, __file__),
        tasks.Problem(id="p", question="q", answer="yes"),
    ),
    (tasks.Task(), tasks.Task().make_problem({"question": "q", "answer": "a"}, "p")),
]
# Pieces of completions, and any character. (Not those that math-verify is slow with.)
PIECES = st.sampled_from(
    [*",.-−$%/+=(){}*b½ \t\n\u00a0", "#### ", "####", "1", "18", "1,000", " 000"]
    + ["{,}", "1e9", "e5", "(b)", "(B)", "<<", ">>", "<<1+1=2>>", "</scratch>", "4 2"]
    + ["The answer is", "answer is", "Q:", "yes", " no", "No,"]
)
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="^\\")
COMPLETIONS = st.lists(PIECES | ANY, max_size=12).map("".join)
FORM = re.compile(r"0|-?[1-9]\d*(/[1-9]\d*)?|-?(0|[1-9]\d*)\.\d*[1-9]")


@settings(max_examples=1800)
@given(COMPLETIONS)
@example("<<" + "-" * 9000 + "1=1>>")
@example("#### " + "9" * 9000)
@example("</scratch>")
def test_graders_read_any_completion(completion):
    for task, problem in GRADERS:
        graded = grade(task, problem, completion, check_working=True)
        answer, verdict, reason = graded
        assert bool(reason) == (verdict != "correct")
        assert (answer is None) == (verdict == "unparsed")
        is_right = answer == problem.answer
        assert is_right == (verdict in ("correct", "invalid_working"))
        assert task.rationale_key(completion) is not None
        flexible = task.extract_answer_flexible(completion)
        assert answer is None or flexible == answer
        right = task.format_response("", problem)
        assert grade(task, problem, right) == (problem.answer, "correct", "")
    for number in (GRADERS[1][0].extract_answer(completion), last_number(completion)):
        assert number is None or FORM.fullmatch(number)


def value_of(text):
    """The value of digits, separators and points as a slow, separate reading."""
    whole, point, decimals = text.partition(".")
    separators = set(re.findall(r"[, ]", whole))
    if len(separators) > 1 or (point and not decimals.isdecimal()):
        return None
    groups = re.split("[, ]", whole)
    if separators:
        if not 1 <= len(groups[0]) <= 3 or groups[0].startswith("0"):
            return None
        if any(len(group) != 3 for group in groups[1:]):
            return None
    elif not groups[0] and not point:
        return None
    return fractions.Fraction(f"{''.join(groups) or '0'}.{decimals or '0'}")


@settings(max_examples=1600)
@given(st.text("0123459, .", max_size=9))
@example("1,000")
@example("1 000 000.5")
@example("1,000 000")
def test_digits_and_separators_are_read_as_a_second_reading_does(text):
    text = " ".join(text.split()).rstrip(" .")
    expected = value_of(text)
    found = read_number(text)
    assert (found and fractions.Fraction(found)) == expected
    assert found is None or read_number(found) == found


@settings(max_examples=150)
@given(
    st.integers(-(10**6), 10**6),
    st.integers(1, 999),
    st.sampled_from(
        ["{}/{}", r"\frac{{{}}}{{{}}}", r"$\dfrac{{{}}}{{{}}}$", "{} / {}."]
    ),
)
def test_fractions_are_exact(top, bottom, form):
    found = read_number(form.format(top, bottom))
    assert fractions.Fraction(found) == fractions.Fraction(top, bottom)
    assert read_number(found) == found


SCALARS = st.sampled_from(
    [None, True, -1, 0, 2, 1e16, 1e400, -0.0, "", " ", "a", "1,0"]
)
JSON = (
    SCALARS
    | st.text(max_size=3)
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.sampled_from(["label", "text", "stem"]), SCALARS, max_size=3)
)
NAMES = ["question", "answer", "answerKey", "choices", "id", "class", "rationale"]
# Mostly what is right, so that not all is refused.
RIGHT = {
    "question": st.just("q?"),
    "answer": st.sampled_from(["b", 1, "18", "#### 18", 0.5]),
    "choices": st.just(["x", "y", "z"]),
}
RECORDS = st.fixed_dictionaries(
    {name: values | JSON for name, values in RIGHT.items()},
    optional={name: JSON for name in NAMES if name not in RIGHT},
)


def read(directory, name, content):
    """The training problems of a file, or the text of the `ValueError`."""
    path = directory / "mine.jsonl"
    path.write_bytes(content)
    task = tasks.get(name, train_path=path, eval_path=path)
    try:
        return checked_problems(task, "train")
    except ValueError as error:
        assert "mine.jsonl" in str(error) or "can never be right" in str(error)
        return str(error)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=800)
@given(st.sampled_from(["jsonl", "gsm8k", "commonsense_qa"]), RECORDS)
def test_random_records_are_right_problems_or_named(directory, name, record):
    found = read(directory, name, json.dumps(record).encode() + b"\n")
    if isinstance(found, str):
        return
    (problem,) = found
    assert record.get("rationale") is None or not record["rationale"].strip()
    for text in (problem.id, problem.question, problem.answer):
        assert text.strip() and text not in ("None", "True", "nan")


LINE = json.dumps(
    {"question": "é 1,000?", "answer": "18", "id": "x"}, ensure_ascii=False
)


@settings(max_examples=800)
@given(
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"]),
    st.lists(st.tuples(st.integers(0, 99), st.binary(max_size=3)), max_size=2),
)
def test_random_bytes_are_lines_or_named(directory, encoding, edits):
    content = LINE.encode(encoding)
    for place, new in edits:
        content = content[:place] + new + content[place + len(new) :]
    found = read(directory, "jsonl", content)
    if not edits:
        assert isinstance(found, list) == encoding.startswith("utf-8")
