r"""Answers in LaTeX: extraction from `\boxed{...}`, normalization, bases and units."""

import re

# Without braces: a command with its arguments, or a number or word.
_BOX = re.compile(
    r"""\\f?boxed(?![a-zA-Z])\s*(?:\{|(
    \\[a-zA-Z]+\w*(?:\{(?:[^{}]|\{[^{}]*\})*\})*
    |-?[ ]?(?:\w+(?:,\d{3}(?!\d))*(?:\.\d\w*)?|\.\d\w*)(?:/\d+)?
    ))""",
    re.VERBOSE,
)
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_SPACE = re.compile(r"(?<!\\)\\[!,;: ]|\\(?:left|right|quad)(?![a-zA-Z])|~")
_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]]|(?<!\\)\$")
_MIXED = re.compile(r"(?<![\w.^])(\d+) +([1-9]\d{0,8}) ?/ ?(\d{1,9})(?!\d)", re.ASCII)
# A quantity in words: "\text{5 apples}".
_QUANTITY = re.compile(
    r"\\(?:text|mathrm|mbox)\{\s*(-?\d+(?:[.,]\d+)*)\s+([a-zA-Z]{2,}(?:\s[a-zA-Z]+)?)\s*\}",
    re.ASCII,
)
# Thousands, and a fraction or root of digits: "1 000", "\frac 1 2".
_JOINED = re.compile(
    r"(?<![\d^_])\d{1,3}(?:\s+\d{3})+(?!\d)|\\(?:frac|sqrt)\s*\d\s+(?=\d)", re.ASCII
)
# A command ends at a blank, and so does a number: "\pi r", "2 3".
_BLANK = re.compile(r"(\\[a-zA-Z]+(?=\s+[a-zA-Z])|\d(?=\s+\d))\s+|\s+")

_BASE = re.compile(
    r"(?<![\w^])\d[\dA-Z]*_(?:\{((?:[^{}]|\{[^{}]*\})*)\}|(\d+|\w))", re.ASCII
)
_UNIT = re.compile(
    r"(?<=[\d}])(?:\\(?:text\w*|mathrm|mbox)\{)?([a-zA-Z]+)\.?\}?(?:\^\{?\d\}?)?\Z"
)
_NAMES_OF_UNITS = (
    *("mm millimeter", "cm centimeter", "m meter", "km kilometer", "in inch inches"),
    *("ft foot feet", "yd yard", "mi mile", "mg milligram", "g gram", "kg kilogram"),
    *("ml milliliter", "l liter", "s sec second", "min minute", "h hr hour", "day"),
    *("week", "month", "yr year", "cent", "dollar"),
)
_UNITS = {name: names for names in _NAMES_OF_UNITS for name in names.split()}


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` or `\fbox{...}` of a text.

    Args:
        text: Any text. Braces within the box are balanced. Without braces, where TeX
            boxes a single digit, a number with sign and decimals is read
            (`\boxed -1.5`), a fraction (`\boxed 3/4`), a word, or a command with its
            arguments. What follows is left out: `\boxed 2\pi` is 2.

    Returns:
        The content without blanks around it. `None` if the text has no box, or if the
        last box is empty or has no end.
    """
    text = text.replace(r"\fbox", r"\boxed")
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    if boxes[-1][1]:
        return boxes[-1][1]
    start, depth = boxes[-1].end(), 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return text[start : start + brace.start()].strip() or None
    return None


def plain_latex(text: str) -> str:
    r"""LaTeX without marks of layout: blanks, `\left`, `$`.

    Args:
        text: LaTeX.

    Returns:
        E.g. `r"(3,\frac{1}{2})"` for `r"$\left(3, \dfrac{1}{2}\right)$."`, and
        `r"1\frac{1}{2}"` for `"1 1/2"`. A blank between digits joins thousands alone:
        `"2 3"` keeps it. The number of a quantity is out of its text:
        `r"5\text{apples}"` for `r"\text{5 apples}"`.
    """
    text = _DELIMITER.sub(" ", text).strip().removesuffix(".")
    text = _SPACE.sub(" ", _FRACTION.sub(r"\\frac", text)).strip()
    text = _QUANTITY.sub(r"\1\\text{\2}", _MIXED.sub(_mixed_number, text))
    text = _JOINED.sub(lambda found: "".join(found[0].split()), text)
    return _BLANK.sub(lambda found: f"{found[1]} " if found[1] else "", text)


def differ(first: str, second: str) -> bool:
    r"""Whether two texts differ in bases, brackets or units, which math-verify skips.

    Compared are the bases of numbers (`204_7`) and common units, if both have one, for
    a question may name it; and the braces of a set with the brackets of a tuple or an
    interval.

    Args:
        first: Plain LaTeX, see `plain_latex`.
        second: The other.

    Returns:
        `False` if they differ in other things alone, or not at all.
    """
    bases = _bases(first), _bases(second)
    if all(bases) and bases[0] != bases[1]:
        return True
    kinds = _list_brackets(first), _list_brackets(second)
    if all(kinds) and kinds[0].isdisjoint(kinds[1]) and r"\{" in kinds[0] | kinds[1]:
        return True
    units = _unit(first), _unit(second)
    return all(units) and units[0] != units[1]


def _mixed_number(found):
    whole, top, bottom = found.groups()
    is_proper = int(top) < int(bottom)
    return rf"{whole}\frac{{{top}}}{{{bottom}}}" if is_proper else found[0]


def _bases(text):
    found = _BASE.findall(text)
    return sorted(re.sub(r"\\[a-z]+|\W", "", "".join(base)) for base in found)


def _list_brackets(text):
    """The opening brackets around commas: `{"("}` for `"(1,2]"`."""
    opened, found = [], set()
    for mark in re.findall(r"\\?[{}]|[()\[\],]", text):
        if mark == ",":
            found.update(opened[-1:])
        elif mark[-1] in "([{":
            opened.append(mark)
        elif opened:
            opened.pop()
    return found - {"{"}  # an argument, or thousands


def _unit(text):
    found = _UNIT.search(text)
    name = found[1].lower() if found else ""
    return _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))
