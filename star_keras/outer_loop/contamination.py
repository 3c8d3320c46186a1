"""Questions that stand twice: in two splits, in the prompt, or within a split."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks.task import Problem

_SUPERSCRIPT = re.compile(r"[²³¹⁰-ⁿ]+")
_SAME = str.maketrans("−⁄’′", "-/''")
# A line each: numbers, words and `!=`; primes as in `f'(x)` and `y' = 0`, but not
# apostrophes; factorials, but not the ends of sentences; accents, but not the one that
# NFKC makes of `´`, and other signs.
_PART = re.compile(
    r"""
    \d+(?:[.,]\d+)* | \w+ | !=
    | (?<=\b[^\W\d_])(?<!'\w)'+(?=\(|\s*[=+])
    | (?:(?<=[\d)])|(?<=\b\w))!(?=[()\[\]{}]|\s*[-+*/^=<>×÷])
    | (?<!\s)[\u0300-\u036f] | [^\w\s!'|~\u0300-\u036f\ufe00-\ufe0f]
    """,
    re.VERBOSE,
)
_SIGNS = frozenset("!'_-*/^%")
# Signs of mathematics, and the vowel signs of e.g. Hindi.
_CATEGORIES = frozenset(("Sm", "Mn", "Mc"))


def find_contamination(
    problems: Mapping[str, Sequence[Problem]], prompts: PromptBuilder
) -> list[tuple[Problem, str]]:
    """Held-out problems whose question also stands in training or in the prompt.

    Questions are compared without case, spacing, punctuation, apostrophes and
    currencies. Signs of mathematics count, but for `|` and `~`; so do primes (`f'(x)`)
    and factorials before a bracket or an operator (`5! + 1`).

    Args:
        problems: The problems by `"train"` and `"eval"`. Without `"eval"` nothing is
            held out.
        prompts: Has the worked examples.

    Returns:
        Pairs of a problem of `"eval"` and where its question stands, e.g.
        `"training problem train-7"` or `"worked example shown"`.
    """
    places = {}
    for problem in problems["train"]:
        places.setdefault(_key(problem), f"training problem {problem.id}")
    for example in prompts.task.few_shot_examples if prompts.few_shot else ():
        places[_key(example.problem)] = f"worked example {example.problem.id}"
    keys = [(problem, _key(problem)) for problem in problems.get("eval", ())]
    return [(problem, places[key]) for problem, key in keys if key in places]


def describe_repeats(problems: Sequence[Problem], name: str) -> str:
    """A line about problems with the question of an earlier one; empty without any.

    Questions are compared as in `find_contamination`.

    Args:
        problems: The problems of a split.
        name: What they are, e.g. `"training problems"`.
    """
    firsts = {}
    pairs = [
        (problem, firsts.setdefault(_key(problem), problem)) for problem in problems
    ]
    pairs = [(problem, first) for problem, first in pairs if problem is not first]
    if not pairs:
        return ""
    answers = [{problem.answer, first.answer} - {None} for problem, first in pairs]
    others = sum(len(pair) > 1 for pair in answers)
    problem, first = pairs[0]
    return (
        f"{len(pairs):,} of {len(problems):,} {name} repeat the question of an earlier "
        f"one{f', {others:,} with another answer' if others else ''}: first "
        f"{problem.id}, that of {first.id}"
    )


def _key(problem):
    # NFKC would make a digit of a superscript.
    text = _SUPERSCRIPT.sub(r"^\g<0>", problem.question)
    text = unicodedata.normalize("NFKC", text).casefold().translate(_SAME)
    return tuple(filter(_is_counted, _PART.findall(text))) or text


def _is_counted(part):
    if len(part) > 1 or part.isalnum() or part in _SIGNS:
        return True
    return unicodedata.category(part) in _CATEGORIES
