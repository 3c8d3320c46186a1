"""Equations in a text of words and numbers: found, and checked.

`"13 cakes + 154 = 63."` holds the equation 13 + 154 = 63, which is false.
"""

import ast
import fractions
import operator
import re

from star_keras.tasks.read_number import join_thousands

_ARITHMETIC = re.compile(r"[\d.+*/() -]{1,200}", re.ASCII)
_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_SPELLINGS = (
    (re.compile(r"[\u2010\u2011\u2013\u2212]"), "-"),
    (re.compile(r"[×⋅·∗]|\\times\b|\\cdot\b"), "*"),
    (re.compile(r"÷|\\div\b"), "/"),
    (re.compile(r"(?<=[\d)])( ?)[xX]( ?)(?=[\d($])"), r"\1*\2"),
    (re.compile(r"\\?[$€£]|\\[()\[\]]|(?<![\d)])\*\*|\*\*(?![\d(])"), ""),
    (re.compile(r" ?percent\b|\\%"), "%"),
    (re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+", re.MULTILINE), ""),  # lists
)
_WORD = r"[A-Za-z]+(?:[-'’][A-Za-z]+)*"
_UNIT = rf"(?: {_WORD}| ?/ ?{_WORD})"
_TERM = rf"(?:\( ?)*-?(?:\d+(?:\.\d+)?|\.\d+)%?{_UNIT}{{0,3}}(?: ?\))*"
_SIDE = rf"{_TERM}(?: ?[-+*/] ?{_TERM})*"
_LEFT = re.compile(rf"{_SIDE} ?$", re.ASCII)
_RIGHT = re.compile(rf" ?({_SIDE})", re.ASCII)
# What stands before or behind a side that is only a part of its formula.
_GOES_ON_BEFORE = re.compile(
    r"""(?:[\w.\\}]|[\^+*/(-][ ]?|\b(?:times|plus|minus)[ ]
    |(?:[\d%]|half|halves|thirds?|quarters?|fourths?|fifths?)[ ]of[ ])$""",
    re.ASCII | re.VERBOSE,
)
_GOES_ON_BEHIND = re.compile(r"[\w({\\]| ?[\^*/+%]| ?- ?\d", re.ASCII)
_LONGEST = 200


def equation_fault(text: str, answer: str) -> str:
    """What is wrong with the equations of a rationale.

    Args:
        text: The rationale and its answer.
        answer: The answer, a number.

    Returns:
        `"false_equation"`; `"no_equation"` if none has the answer as its result; else
        `""`.
    """
    equations = find_equations(text)
    if not all(map(equation_holds, equations)):
        return "false_equation"
    results = [equation.rpartition("=")[2] for equation in equations]
    known = any(equation_holds(f"{answer}={result}") for result in results)
    return "" if known else "no_equation"


def find_equations(text: str) -> list[str]:
    """The equations in a text, without words, with an operator on the left side.

    Units are skipped. Equations that are not plain arithmetic on both sides are left
    out, such as `"2x + 4 = 10"` or `"1 hour = 60 minutes"`. In a chain, `"2 + 3 = 5 +
    1 = 6"`, each side is compared with the next.

    Args:
        text: Any text. Calculator annotations of GSM8K, `<<6*2=12>>`, are skipped.

    Returns:
        E.g. `["13 + 154=63"]`.
    """
    text = _ANNOTATION.sub("", text)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    found = []
    for line in join_thousands(text).splitlines():
        sides = [" ".join(side.split()) for side in line.split("=")]
        for before, behind in zip(sides, sides[1:], strict=False):
            before, behind = before[-_LONGEST:], behind[:_LONGEST]
            left, right = _LEFT.search(before), _RIGHT.match(behind)
            if left is None or _GOES_ON_BEFORE.search(before[: left.start()]):
                continue
            if right is None or _GOES_ON_BEHIND.match(behind[right.end() :]):
                continue
            pair = [_without_units(side[0]) for side in (left, right)]
            has_operator = re.search(r"[\d)%] *[-+*/]", pair[0])
            if has_operator and None not in map(_value, pair):
                found.append("=".join(pair))
    return found


def _without_units(side):
    """A side without words, and without a bracket around the whole equation."""
    side = " ".join(re.sub(_UNIT, "", side).split())
    excess = side.count("(") - side.count(")")
    if excess > 0 and side.startswith("(" * excess):
        return side[excess:].strip()
    if excess < 0 and side.endswith(")" * -excess):
        return side[:excess].strip()
    return side


def equation_holds(equation: str) -> bool:
    """Whether `"20/3=6.67"` is true to the last decimal that it gives.

    A whole number without a percent sign is never a rounded one: `"18/4=4"` is false,
    and so is `"6.67*3=20"`. `"1/3=33%"` is true.

    Args:
        equation: Two sides of plain arithmetic. Percent signs are hundredths.

    Returns:
        `False` also for text that is not such an equation.
    """
    left, _, right = equation.rpartition("=")
    sides = _value(left), _value(right)
    if None in sides:
        return False
    right = join_thousands(right).replace("%", "/100")
    decimals = len(right.strip().partition(".")[2].partition("/")[0])
    decimals += 2 * right.endswith("/100")
    # Rounded or cut off.
    difference = abs(sides[0] - sides[1])
    if decimals == 0:
        return not difference
    return difference < fractions.Fraction(1, 10**decimals)


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _value(side):
    """The value of plain arithmetic, `None` for anything else."""
    side = join_thousands(side).replace("%", "/100").strip()
    if not _ARITHMETIC.fullmatch(side):
        return None
    try:
        # Leading zeros are no Python.
        plain = re.sub(r"(?<![\d.])0+(?=\d)", "", side)
        return _evaluate(ast.parse(plain, mode="eval").body)
    except (ValueError, SyntaxError, ArithmeticError, MemoryError, RecursionError):
        return None


def _evaluate(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return fractions.Fraction(repr(node.value))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left), _evaluate(node.right)
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError("no arithmetic")
