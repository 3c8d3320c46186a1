"""Addition with a scratchpad that carries, as in the STaR paper.

One problem with its worked response. Each line removes the last digit of both
operands and puts a digit of the sum in front; `C` is the carry:

    Input:
    6 2 4 + 2 5 9
    Target:
    <scratch>
    6 2 4 + 2 5 9 , C: 0
    6 2 + 2 5 , 3 C: 1
    6 + 2 , 8 3 C: 0
    , 8 8 3 C: 0
    0 8 8 3
    </scratch>
    8 8 3

A hint shows the answer behind `Target:`.
"""

import functools
import itertools
import random
from collections.abc import Iterable, Sequence

from star_keras.tasks.task import FewShotExample, Problem, Task
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

_MOST_DIGITS = 100
_COUNT = {"at_least": 0, "at_most": 10_000_000}


def scratchpad(first: str, second: str) -> str:
    """The worked steps of adding two strings of `n` decimal digits each.

    Reference:
        [Show Your Work](https://arxiv.org/abs/2112.00114), section 3, in the
        layout of [STaR](https://arxiv.org/abs/2203.14465), figure 3.
    """
    lines = []
    carry, total = 0, ""
    for kept in range(len(first), 0, -1):
        operands = f"{' '.join(first[:kept])} + {' '.join(second[:kept])}"
        lines.append(_step(f"{operands} ,", total, carry))
        column = int(first[kept - 1]) + int(second[kept - 1]) + carry
        carry, total = column // 10, f"{column % 10}{total}"
    lines.append(_step(",", total, carry))
    lines.append(" ".join(f"{carry}{total}"))
    return "\n".join(lines)


def _step(left: str, total: str, carry: int) -> str:
    return " ".join([left, *total, "C:", str(carry)])


def _spaced_sum(first: str, second: str) -> str:
    return " ".join(str(int(first) + int(second)))


class Arithmetic(Task):
    """`n`-digit addition for several `n`, drawn from a seed.

    No problem is in two splits. The class of a problem is its number of digits.
    One digit has 100 problems in all; at most a fifth of such a length is held
    out, and its splits may be smaller than asked for.

    Args:
        digits: Lengths of the operands in `"train"` and `"eval"`.
        extrapolation_digits: Lengths in the split `"extrapolation"`, for
            evaluation alone. Defaults to the five after the longest of `digits`.
        train_problems: Problems a length in `"train"`.
        eval_problems: Problems a length in the other two splits.
        examples_per_length: Worked examples a length in the few-shot prompt
            (the paper has 10). They are in no split.
        seed: Decides the problems. With another count a split is longer or
            shorter, with the same problems at its beginning.

    Raises:
        ValueError: if an argument is no integer or out of bounds, lengths are
            not different, or one is in both arguments; by `problems`, if there
            is no such split.
    """

    name = "arithmetic"
    stop = ("\n\n", "\nInput:")
    answer_marker = "</scratch>"
    question_format = "Input:\n{question}\nTarget:\n"
    hint_format = "Input:\n{question}\nTarget: {answer}\n"
    format_fields = ("question", "hint", "stop")
    splits = ("train", "eval", "extrapolation")
    system_text = (
        "Add the numbers digit by digit between <scratch> and </scratch>. End with the "
        "sum, a blank between its digits."
    )

    def __init__(
        self,
        digits: Sequence[int] = (1, 2, 3, 4, 5),
        extrapolation_digits: Sequence[int] | None = None,
        train_problems: int = 10_000,
        eval_problems: int = 200,
        examples_per_length: int = 2,
        seed: int = 0,
    ):
        self.digits = _lengths("digits", digits)
        if not self.digits:
            raise invalid("digits", "at least one length, e.g. [1, 2, 3]", digits)
        if extrapolation_digits is None:
            next_one = max(self.digits) + 1
            extrapolation_digits = range(next_one, min(next_one + 5, _MOST_DIGITS + 1))
        self.extrapolation_digits = _lengths(
            "extrapolation_digits", extrapolation_digits
        )
        if set(self.digits) & set(self.extrapolation_digits):
            raise invalid(
                "extrapolation_digits",
                f"lengths that are not trained on, digits={list(self.digits)}",
                extrapolation_digits,
                "Leave it out for the five lengths after the longest of these.",
            )
        self.train_problems = checked("train_problems", int, train_problems, **_COUNT)
        self.eval_problems = checked("eval_problems", int, eval_problems, **_COUNT)
        # More would leave one digit without problems to train on.
        self.examples_per_length = checked(
            "examples_per_length", int, examples_per_length, at_least=0, at_most=50
        )
        self.seed = checked("seed", int, seed)

    @functools.cache  # noqa: B019 (lives as long as its run)
    def _problems_of_length(self, n: int) -> tuple[list, list, list]:
        """Few-shot, held-out and training problems of `n` digits."""
        possible = 100 if n == 1 else (9 * 10 ** (n - 1)) ** 2
        # A stream of its own: other counts do not change the held-out problems.
        held_out = list(
            itertools.islice(
                self._pairs(n, "eval"), min(self.eval_problems, possible // 5)
            )
        )
        excluded = set(held_out)
        rest = list(
            itertools.islice(
                (pair for pair in self._pairs(n, "train") if pair not in excluded),
                min(
                    self.examples_per_length + self.train_problems,
                    possible - len(held_out),
                ),
            )
        )
        shown = self.examples_per_length
        return tuple(
            [make_problem(str(a), str(b)) for a, b in pairs]
            for pairs in (rest[:shown], held_out, rest[shown:])
        )

    def _pairs(self, n, purpose):
        """Different pairs of operands of `n` digits in a random order."""
        draw = random.Random(f"arithmetic {self.seed} {n} {purpose}")
        low, high = (0, 9) if n == 1 else (10 ** (n - 1), 10**n - 1)
        if n <= 2:
            pairs = list(itertools.product(range(low, high + 1), repeat=2))
            draw.shuffle(pairs)
            yield from pairs
        else:
            seen = set()
            while True:
                pair = draw.randint(low, high), draw.randint(low, high)
                if pair not in seen:
                    seen.add(pair)
                    yield pair

    def problems(self, split: str) -> list[Problem]:
        self.check_split(split)
        lengths = self.extrapolation_digits if split == "extrapolation" else self.digits
        part = {"train": 2, "eval": 1, "extrapolation": 1}[split]
        return [p for n in lengths for p in self._problems_of_length(n)[part]]

    @functools.cached_property
    def few_shot_examples(self) -> list[FewShotExample]:
        return [
            FewShotExample(
                problem=problem, rationale=scratchpad(*_operands(problem.question))
            )
            for n in self.digits
            for problem in self._problems_of_length(n)[0]
        ]

    def format_response(self, rationale: str, problem: Problem) -> str:
        if not rationale:
            return problem.answer
        return f"<scratch>\n{rationale}\n</scratch>\n{problem.answer}"

    def extract_answer(self, completion: str) -> str | None:
        answer = completion.rpartition(self.answer_marker)[2].strip()
        digits = answer.split(" ")
        is_number = all(len(d) == 1 and d in "0123456789" for d in digits)
        return answer if is_number else None

    def working_fault(self, completion: str, problem: Problem) -> str:
        """The first line that is not that of the right response."""
        rationale = scratchpad(*_operands(problem.question))
        right = self.format_response(rationale, problem).split("\n")
        lines = completion.strip().split("\n")
        for line, expected in itertools.zip_longest(lines, right, fillvalue=""):
            if line != expected:
                return f"{line!r:.80} is not {expected!r:.80}"
        return ""


def make_problem(first: str, second: str) -> Problem:
    """The problem of adding two digit strings of the same length."""
    return Problem(
        id=f"{first}+{second}",
        question=f"{' '.join(first)} + {' '.join(second)}",
        answer=_spaced_sum(first, second),
        problem_class=f"{len(first)}_digit" + "s" * (len(first) > 1),
    )


def _operands(question: str) -> list[str]:
    return question.replace(" ", "").split("+")


def _lengths(name, values):
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise invalid(name, "a sequence of integers, e.g. [1, 2, 3]", values)
    values = list(values)
    lengths = [checked(name, int, n, at_least=1, at_most=_MOST_DIGITS) for n in values]
    if len(set(lengths)) < len(lengths):
        raise invalid(name, "different lengths", values, "Name each once.")
    return tuple(lengths)
