"""Equations in a text of words and numbers: found, and checked.

`"13 cakes + 154 = 63."` holds the equation 13 + 154 = 63, which is false.
"""

import ast
import fractions
import operator
import re

from star_keras.tasks.read_number import join_thousands

# A calculator annotation of GSM8K.
ANNOTATION = re.compile(r"<<([^<>]*)>>")
_ARITHMETIC = re.compile(r"[\d.+*/() -]{1,200}", re.ASCII)
_SPELLINGS = (
    (re.compile(r"[\u2010\u2011\u2013\u2212]"), "-"),
    (re.compile(r"[×⋅·∗]|\\times\b|\\cdot\b"), "*"),
    (re.compile(r"÷|\\div\b"), "/"),
    (re.compile(r"(?<=[\d)])( ?)[xX]( ?)(?=[\d($])"), r"\1*\2"),
    (re.compile(r"(?<=[\d)]) [xX] (?=-[\d($])"), " * "),  # 2x -3 has an unknown
    (re.compile(r"\\?[$€£]|\\[()\[\]]|(?<![\d)])\*\*|\*\*(?![\d(])"), ""),
    (re.compile(r" ?percent\b|\\%"), "%"),
    (re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+", re.MULTILINE), ""),  # lists
)
_WORD = r"[A-Za-z]+(?:[-'’][A-Za-z]+)*"
# Unknowns, and operators in words.
_NO_UNIT = r"(?:[xyzXYZ]|squared|cubed|(?:times|plus|minus|by)(?=\ -?[\d(.]))\b"
_UNIT = rf"(?: (?!{_NO_UNIT}){_WORD}| ?/ ?{_WORD})"
_MIXED = r"(\d+) (\d+) ?/ ?(\d+)"
_NUMBER = rf"(?:{_MIXED.replace('(', '(?:')}|\d+(?:\.\d+)?|\.\d+)"
_TERM = rf"(?:\( ?)*-?{_NUMBER}%?{_UNIT}{{0,3}}(?: ?\))*"
_SIDE = rf"{_TERM}(?: ?[-+*/] ?{_TERM})*"
_LEFT = re.compile(rf"{_SIDE} ?$", re.ASCII)
_RIGHT = re.compile(rf" ?({_SIDE})", re.ASCII)
# What stands before or behind a side that is only a part of its formula.
_GOES_ON_BEFORE = re.compile(
    r"""(?:[\w.\\}]|[\^+*/(-][ ]?|\d[ ]
    |\b(?:times|plus|minus|(?:divided|multiplied)[ ]by)[ ]
    |(?:[\d%]|half|halves|thirds?|quarters?|fourths?|fifths?)[ ]of[ ])$""",
    re.ASCII | re.VERBOSE,
)
_GOES_ON_BEHIND = re.compile(
    rf"""[\w({{\\]|[ ]?[\^*/+%]|[ ]?-[ ]?\d|[ ]?[¼½¾⅐-⅞]|[ ]\\[dtc]?frac|[ ]{_NO_UNIT}
    |(?<=\d)[ ](?:\d{{3}}(?![\d-])|\d+/)|(?<=\d[ ]and)[ ]\d+/""",
    re.ASCII | re.VERBOSE,
)
_ONE_FRACTION = re.compile(rf"(?:\d+ )?\d+ ?/ ?\d+{_UNIT}+ ?")
_NESTED = re.compile(r"/ \d+/\d")  # 3 / 1/4
_REMAINDER = re.compile(
    r"""[^=]{0,40}?(?:\bremainder\b|\br(?:em)?\.?[ ]?\d
    |\b(?:with|and)[ ]\d+[ ](?:\w+[ ]){0,2}(?:left|over|remain))""",
    re.IGNORECASE | re.VERBOSE,
)
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

    Units are skipped, and `2 1/2` is a mixed number. Equations that are not plain
    arithmetic on both sides are left out, such as `"2x + 4 = 10"` or `"1 hour = 60
    minutes"`; so are operators in words (`5 times 2`) and two numbers side by side
    (`5 000`). Left out if false as written: divisions with a remainder (`7 / 2 = 3 R
    1`), by a fraction (`3 / 1/4 = 12`), and a fraction of another unit (`1/2 hour = 30
    minutes`). In a chain, `"2 + 3 = 5 + 1 = 6"`, each side is compared with the next.

    Args:
        text: Any text. Calculator annotations of GSM8K, `<<6*2=12>>`, are skipped.

    Returns:
        E.g. `["13 + 154=63"]`.
    """
    text = ANNOTATION.sub("", text)
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
            if right is None or _GOES_ON_BEHIND.match(behind, right.end()):
                continue
            pair = [_without_units(side[0]) for side in (left, right)]
            has_operator = re.search(r"[\d)%] *[-+*/]", pair[0])
            if not has_operator or None in map(_value, pair):
                continue
            equation = "=".join(pair)
            if equation_holds(equation) or not _in_doubt(left[0], right[0], behind):
                found.append(equation)
    return found


def _in_doubt(left, right, behind):
    """Whether a false equation may be meant otherwise: `1/2 hour = 30 minutes`."""
    if "/" not in left:
        return False
    units = [re.findall(_WORD, side) for side in (left, right)]
    converts = _ONE_FRACTION.fullmatch(left) and all(units) and units[0] != units[1]
    return bool(converts or _NESTED.search(left) or _REMAINDER.match(behind))


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
        side = re.sub(_MIXED, _mixed_sum, side)
        # Leading zeros are no Python.
        plain = re.sub(r"(?<![\d.])0+(?=\d)", "", side)
        return _evaluate(ast.parse(plain, mode="eval").body)
    except (ValueError, SyntaxError, ArithmeticError, MemoryError, RecursionError):
        return None


def _mixed_sum(found):
    """`"(2+1/2)"` for `"2 1/2"`; `"2 3/2"` stays, which is no number."""
    whole, top, bottom = found.groups()
    return f"({whole}+{top}/{bottom})" if int(top) < int(bottom) else found[0]


def _evaluate(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return fractions.Fraction(repr(node.value))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left), _evaluate(node.right)
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError("no arithmetic")
