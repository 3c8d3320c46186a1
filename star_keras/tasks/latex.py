r"""Answers in LaTeX: extraction from `\boxed{...}`, and normalization."""

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
# A command ends at a blank: "\pi r".
_BLANK = re.compile(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])|\s+")


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
        E.g. `r"(3,\frac{1}{2})"` for `r"$\left(3, \dfrac{1}{2}\right)$."`.
    """
    text = _DELIMITER.sub(" ", text).strip().removesuffix(".")
    text = _SPACE.sub(" ", _FRACTION.sub(r"\\frac", text)).strip()
    return _BLANK.sub(lambda found: f"{found[1]} " if found[1] else "", text)
