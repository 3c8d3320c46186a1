"""Checkers: comparison of answers, with an explanation for a wrong answer."""

import re
from collections.abc import Callable

from star_keras.tasks import math_verifier
from star_keras.tasks.latex import differ, last_boxed, plain_latex
from star_keras.tasks.read_number import SIGNS, read_number
from star_keras.tasks.task import Problem
from star_keras.utils.errors import invalid
from star_keras.utils.imports import import_callable

# `True` for a right answer; `False` or an explanation for a wrong one.
Checker = Callable[[str, Problem], bool | str]

_IN_BRACKETS = re.compile(r"\(\s*(\w{1,3})\s*\)")
# No label: "-1", "1.5", "1:30".
_LABEL = re.compile(rf"\A\W*(?<![{SIGNS}+])(\w{{1,3}})(?:\W*\Z|\)|[.:](?!(?<=\d.)\d))")
# math-verify takes letters for factors.
_TEXT = re.compile(r"\\(?:text\w*|mathrm|mbox)\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z]{3,}")
_WHOLE_NUMBER = re.compile(r"-?[1-9]\d{0,8}|0", re.ASCII)
_BETWEEN = re.compile(r"[,;\n]|\band\b")


def exact(answer: str, problem: Problem) -> bool:
    """The same text."""
    return answer == problem.answer


def numeric(answer: str, problem: Problem) -> bool | str:
    """The same number, `"$1,080.50"` and `"1080.5"`; see `read_number`."""
    expected, number = read_number(problem.answer), read_number(answer)
    for text, read in ((problem.answer, expected), (answer, number)):
        if read is None:
            return f"{text!r:.80} is no number"
    return number == expected


def math(answer: str, problem: Problem) -> bool | str:
    r"""The same in mathematics, `r"\frac{1}{2}"` and `"0.5"`; by math-verify.

    A `\boxed{...}` counts instead of the text around it. A unit may be missing, and
    `r"5\%"` is 5 as well as 0.05. Other bases and brackets are wrong, see `differ`.
    """
    expected, answer = (
        plain_latex(last_boxed(text) or text) for text in (problem.answer, answer)
    )
    words, found = (_TEXT.sub(r"\1", text) for text in (expected, answer))
    if found == words or _WORD.fullmatch(words):
        return found.casefold() == words.casefold()
    # math-verify would take milliseconds for a pair of whole numbers.
    are_whole = _WHOLE_NUMBER.fullmatch(expected) and _WHOLE_NUMBER.fullmatch(answer)
    if are_whole or differ(expected, answer):
        return False
    equal = math_verifier.equal(expected, answer)
    if equal is None:
        return f"math-verify cannot compare {answer!r:.80} with {expected!r:.80}"
    return equal


def choice(answer: str, problem: Problem) -> bool | str:
    """The same label of a choice, `"b"`, `"(B)"`, `"b) dog"` or `"dog (b)"`."""
    labels = [_labels(text) for text in (problem.answer, answer)]
    for text, found in zip((problem.answer, answer), labels, strict=True):
        if len(found) != 1:
            number = "several labels" if found else "no label"
            return f"{text!r:.80} has {number} of a choice"
    return labels[0] == labels[1]


def as_set(answer: str, problem: Problem) -> bool | str:
    """The same parts in any order, `"red, blue"` and `"Blue and red"`.

    Parts are between commas, semicolons, line breaks and `and`. Numbers are compared as
    numbers, other texts without case.
    """
    expected, found = _parts(problem.answer), _parts(answer)
    faults = [
        f"{verb} {', '.join(sorted(parts))!r:.80}"
        for verb, parts in (("lacks", expected - found), ("adds", found - expected))
        if parts
    ]
    return " and ".join(faults) or True


CHECKERS = {
    "exact": exact,
    "numeric": numeric,
    "math": math,
    "choice": choice,
    "set": as_set,
}


def get_checker(checker: str | Checker) -> Checker:
    """A checker by its name.

    Args:
        checker: A key of `CHECKERS`; `"package.module:name"` of a callable of your own;
            or a callable. A callable takes an answer and its `Problem`. It returns
            `True` for a right answer, and `False` or an explanation for a wrong one.

    Raises:
        ValueError: if there is no such checker.
    """
    if callable(checker):
        return checker
    rule = f'one of {sorted(CHECKERS)}, or "package.module:name" of a callable'
    if not isinstance(checker, str):
        raise invalid("checker", rule, checker)
    return CHECKERS.get(checker) or import_callable("checker", checker, rule)


def _labels(text):
    """The labels in brackets, or else the label at the beginning of a text."""
    found = _IN_BRACKETS.findall(text) or _LABEL.findall(text)
    return {label.casefold() for label in found}


def _parts(text):
    parts = (part.strip(" .{}[]()") for part in _BETWEEN.split(text))
    return {
        read_number(part) or " ".join(part.casefold().split()) for part in parts
    } - {""}
