"""The process that reads LaTeX by math-verify; see `star_keras.tasks.math_verifier`.

It reads lines of JSON and answers each with one: a string by the numerator and the
denominator of its value, a pair of strings by whether both are the same, both by `null`
if they cannot be read. It is killed by the system when an expression takes too long.
"""

import contextlib
import json
import os
import resource
import signal
import sys

# Libraries print, antlr4 for one: the standard output is for answers alone.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import math_verify  # noqa: E402
import sympy  # noqa: E402

_CPU_SECONDS = 2
_MEMORY = 2 << 30  # bytes
_MOST_DIGITS = 1000
_CONFIG = [math_verify.LatexExtractionConfig()]


def rational(latex: str) -> list[str] | None:
    """Numerator and denominator of a LaTeX expression, `None` if it is no number."""
    found = _parsed(latex)
    if not found or not isinstance(found[0], sympy.Expr):
        return None
    # Decimals are meant exactly.
    value = found[0].replace(
        lambda part: part.is_Float, lambda part: sympy.Rational(str(part))
    )
    value = value.doit()
    if not value.is_Rational:
        return None
    if max(abs(value.p), value.q) >= 10**_MOST_DIGITS:
        return None
    return [str(value.p), str(value.q)]


def equal(expected: str, answer: str) -> bool | None:
    """Whether two expressions are the same, `None` if one is unreadable."""
    pair = _parsed(expected), _parsed(answer)
    return math_verify.verify(*pair, timeout_seconds=None) if all(pair) else None


def _parsed(latex):
    return math_verify.parse(
        f"${latex}$",
        extraction_config=_CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )


def main():
    """Answer the lines of the standard input until it ends."""
    with contextlib.suppress(ValueError, OSError):  # not on every system
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    print("ready", file=_answers, flush=True)
    for line in sys.stdin:
        # CPU time, so that the answer does not depend on how busy the machine is.
        # Without a handler its signal ends the process, within C code too.
        signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
        try:
            question = json.loads(line)
            is_text = isinstance(question, str)
            answer = rational(question) if is_text else equal(*question)
        except Exception:  # whatever math-verify and SymPy raise on odd input
            answer = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), file=_answers, flush=True)


if __name__ == "__main__":
    main()
