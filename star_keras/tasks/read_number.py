"""Numbers in text, `"$1,080.50."`, `"3/4"` or LaTeX, read exactly or not at all.

A number is read as its shortest decimal, `"1080.5"`, or as a fraction in lowest
terms where no decimal is exact, `"7/3"`. A percent sign or a currency is left out.
"""

import decimal
import fractions
import re
import unicodedata

from star_keras.tasks import math_verifier

# Hyphens, the en dash and the minus sign.
SIGNS = "-\u2010\u2011\u2013\u2212"
_BLANK = "[ \u00a0\u202f]"
_SEPARATOR = rf"(?:,|\{{,\}}|\\,|{_BLANK})"
_SLASHES = str.maketrans("\u2044\u2215", "//")
_CURRENCY = r"(?:\\?\$|[€£])"
_VULGAR_FRACTION = re.compile(r"(\d?)([¼½¾⅐-⅞])")

# The separator of the thousands is the same throughout.
_PLAIN = re.compile(
    rf"""(?P<sign>[{SIGNS}+])?\s*{_CURRENCY}?\s*(?P<inner_sign>[{SIGNS}])?\s*
    (?P<digits>
      (?:[1-9]\d{{0,2}}(?P<separator>{_SEPARATOR})\d{{3}}(?:(?P=separator)\d{{3}})*|\d+)
      (?:\.\d+)?
      |\.\d+
    )
    (?P<exponent>[eE][+-]?\d{{1,2}})?
    \s*(?:\\?%)?\s*\$?""",
    re.ASCII | re.VERBOSE,
)
_GROUPS = re.compile(
    r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])"
    r"|(?<![\d.,])[1-9]\d{0,2}(?:\{,\}\d{3})+(?!\d|\{,)",
    re.ASCII,
)
_FRACTION = re.compile(
    rf"(?P<sign>[{SIGNS}])?\s*(?:(?P<whole>\d+)\s+)?{_CURRENCY}?\s*"
    r"(?P<top>\d+(?:\.\d+)?)\s*/\s*(?P<bottom>\d+(?:\.\d+)?)\s*(?:\\?%)?",
    re.ASCII,
)
_LONGEST = 200
_BOX = re.compile(r"\\(?:boxed|text\w*|math\w+)\s*\{([^{}]*)\}")
# Thousands in a sentence: "5 000 people" and not "5 100 times".
_JOINED = rf"(?:{_BLANK}\d{{3}})*(?:[ ]0\d\d|[\u00a0\u202f]\d{{3}})(?!\d)"
# Whatever looks like a number, well formed or not. First what is never read: roots,
# thousands joined by other marks, powers.
_CANDIDATE = re.compile(
    rf"""\u221a\s?\(?\d[\d.,]*
    |(?:{_CURRENCY}\s?)?\d[\d.,]*(?:['\u2019_\u066c]\d[\d.,]*|[\u00b2\u00b3\u00b9\u2070-\u207b]+)+
    |(?:\d+{_BLANK}?)?\\(?:[dtc]?frac|sqrt)(?:\s*\[[^\[\]]*\])?
      (?:\s*\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}|\d)+
    |[\w.)}}]{{1,20}}\s?\^\s?(?:\{{[^{{}}]*\}}|[{SIGNS}]?[\d.]+)
    |(?:{_CURRENCY}\s?[{SIGNS}]?)?
      (?:
        \d+{_BLANK}\d+{_BLANK}?/{_BLANK}?\d[\d.,:/]*
        |(?<![\d.,:/])[1-9]\d{{0,2}}(?={_JOINED})(?:{_BLANK}\d{{3}})+(?![\d,/])(?:\.\d+)?
        |(?:(?<![\w.])\.)?\d
          (?:[\d.,:]|\{{,\}}(?=\d)|\\,(?=\d)|{_BLANK}?/{_BLANK}?(?=[.\d]))*
          (?:[eE][+-]?\d+(?!\w))?
      )
      (?:\s?\\?%)?""",
    re.ASCII | re.VERBOSE,
)
_AFTER_AN_OPERAND = re.compile(r"[\w.)\]}%]$|[\d)\]}%]\s+$", re.ASCII)


def read_number(text: str) -> str | None:
    """The number that a text is, and nothing else.

    Args:
        text: E.g. `"$1,080.50."`, `"1 000"`, `"-3"`, `"50%"`, `"2 1/2"` or
            `r"\\frac{7}{3}"`. Commas and blanks join well-formed groups of
            thousands alone. More than 200 characters are no number.

    Returns:
        Its normal form, e.g. `"1080.5"` or `"7/3"`, or `None` if the text is no
        number.

    Raises:
        RuntimeError: if math-verify, which reads fractions and LaTeX, does not start.
    """
    text = text.translate(_SLASHES).strip().lstrip("*").rstrip("*. \t\n").strip()
    if len(text) > _LONGEST:
        return None
    text = _VULGAR_FRACTION.sub(_spelled_out, " ".join(text.split()))
    found = _PLAIN.fullmatch(text)
    if found and not (found["sign"] and found["inner_sign"]):
        digits = found["digits"]
        if found["separator"]:
            digits = digits.replace(found["separator"], "")
        sign = "-" if (found["inner_sign"] or found["sign"] or "+") != "+" else ""
        return number_text(decimal.Decimal(sign + digits + (found["exponent"] or "")))
    latex = _latex(text)
    value = None if latex is None else math_verifier.rational(latex)
    return None if value is None else _fraction_text(value)


def last_number(text: str) -> str | None:
    """The last number in a text, in its normal form; see `read_number`.

    A hyphen is a minus sign if a number follows at once and none comes before:
    neither in `"- 18 apples"` nor in `"10 - 20"`. Blanks join thousands if a group
    begins with 0, as in `"5 000 people"`, or if a blank is a no-break one. All else
    may be two numbers: `"5 100 times"` and `"1 250 people"` end in 100 and 250.

    Args:
        text: Any text.

    Returns:
        The number, or `None` without one or if the last is malformed, as in `"2,5"`.

    Raises:
        RuntimeError: if math-verify does not start.
    """
    text = _VULGAR_FRACTION.sub(_spelled_out, text.translate(_SLASHES))
    text = _BOX.sub(r" \1 ", text)
    candidates = list(_CANDIDATE.finditer(text))
    if not candidates:
        return None
    last = candidates[-1]
    before = text[: last.start()]
    is_negative = before[-1:] in SIGNS if before else False
    if is_negative and _AFTER_AN_OPERAND.search(before[-8:-1]):
        is_negative = False
    number = last[0].rstrip(".,:/ ")
    return read_number(f"-{number}" if is_negative else number)


def number_text(value: int | float | decimal.Decimal) -> str:
    """The shortest decimal of a finite number: `"10000000000000000"` for 1e16.

    Args:
        value: The number.
    """
    if isinstance(value, float):
        value = repr(value)
    text = format(decimal.Decimal(value), "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def join_thousands(text: str) -> str:
    """The text without the commas of well-formed groups: `"1000 3,4"`."""
    return _GROUPS.sub(lambda found: re.sub(r"[{},]", "", found[0]), text)


def _spelled_out(found):
    """`"3 1/2"` for `"3½"`."""
    fraction = unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
    return f"{found[1]} {fraction}" if found[1] else fraction


def _latex(text):
    """The LaTeX of a number that is not plain, `None` if it cannot be one."""
    if not re.search(r"\d", text, re.ASCII):
        return None
    found = _FRACTION.fullmatch(text)
    if found:
        whole, top, bottom = found["whole"] or "", found["top"], found["bottom"]
        if whole and not (top + bottom).isdigit():
            return None
        if whole and int(top) >= int(bottom):
            return None
        sign = "-" if found["sign"] else ""
        return rf"{sign}{whole}\frac{{{top}}}{{{bottom}}}"
    if "\\" not in text and "^" not in text:
        return None
    text = re.sub(r"\\?%$", "", text.strip("$ ")).strip()
    return join_thousands(re.sub(f"[{SIGNS}]", "-", text))


def _fraction_text(value: fractions.Fraction):
    rest, places = value.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest > 1:
        return str(value)
    digits = value.numerator * 10**places // value.denominator
    sign, digits = int(digits < 0), tuple(map(int, str(abs(digits))))
    return number_text(decimal.Decimal((sign, digits, -places)))
