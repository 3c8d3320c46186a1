"""The process that reads LaTeX by math-verify; see `star_keras.tasks.math_verifier`.

It reads a JSON string a line and writes the numerator and denominator of its value,
or `null`, as JSON. It is killed by the system when an expression takes too long.
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
    found = math_verify.parse(
        f"${latex}$",
        extraction_config=_CONFIG,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
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
            answer = rational(json.loads(line))
        except Exception:  # whatever math-verify and SymPy raise on odd input
            answer = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(answer), file=_answers, flush=True)


if __name__ == "__main__":
    main()
