"""Word problems of one to three steps, made from templates and a seed.

One of its problems with a worked response:

    Q: Lea has 75 beads. She uses 27 for a necklace and makes bracelets of 8 beads from
    the others. How many bracelets does she make?
    A: 75 - 27 = 48 beads. 48 / 8 = 6 bracelets. The answer is 6.

A line of `templates/word_problems.jsonl` has a text with slots and alternatives
(`[walks|runs]`), bounds of its numbers `a` to `d`, and its steps, whose results are `x`
and `y`.
"""

import functools
import itertools
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from star_keras.tasks.equations import equation_fault
from star_keras.tasks.read_number import last_number, read_number
from star_keras.tasks.sources import own_examples
from star_keras.tasks.task import Problem, Task
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

_STEPS = (1, 2, 3)
_COUNT = {"at_least": 0, "at_most": 20_000}
_TRIES = 2_000  # draws in vain before a template or a split is given up
_NAMES = (
    "Ada Ben Carla David Elena Felix Gina Hugo Irene Jonas Kim Leo Maria Nils Olga "
    "Peter Rosa Sam Tara Viktor Wanda Yusuf Zoe Amir"
)
_NOUNS = {
    "thing": "marbles stickers coins shells pencils cards buttons toys stamps balloons",
    "food": "apples cookies pears rolls plums muffins oranges peaches figs lemons",
    "pastry": "rolls cookies muffins buns pies",
    "animal": "cows sheep goats horses pigs hens rabbits ducks",
    "plant": "tulips roses bushes trees lilies herbs",
}
_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")


class WordProblems(Task):
    """Word problems in varied wording; the class is the number of steps.

    Training and held-out problems are of different templates: an accuracy counts
    problems in words that were not trained on. All numbers are positive integers.

    Args:
        steps: Numbers of steps, of 1, 2 and 3.
        train_problems: Problems a number of steps in `"train"`.
        eval_problems: Problems a number of steps in `"eval"`.
        largest_number: Largest of the numbers and results, from 20 to 2,000. Templates
            without such small numbers are left out.
        seed: Decides the problems. With another count a split is longer or
            shorter, with the same problems at its beginning.

    Raises:
        ValueError: if an argument is out of bounds; by `problems`, if there is no such
            split, or not that many problems with numbers up to `largest_number`.
        RuntimeError: by the methods that read answers, if math-verify does not start.
    """

    name = "word_problems"

    def __init__(
        self,
        steps: Sequence[int] = _STEPS,
        train_problems: int = 10_000,
        eval_problems: int = 200,
        largest_number: int = 2_000,
        seed: int = 0,
    ):
        is_list = isinstance(steps, Sequence) and len(steps) > 0
        if not is_list or len(set(steps)) < len(steps) or not set(steps) <= {*_STEPS}:
            raise invalid("steps", f"different ones of {list(_STEPS)}", steps)
        self.steps = tuple(sorted(steps))
        self.counts = {
            "train": checked("train_problems", int, train_problems, **_COUNT),
            "eval": checked("eval_problems", int, eval_problems, **_COUNT),
        }
        self.largest_number = checked(
            "largest_number", int, largest_number, at_least=20, at_most=2_000
        )
        self.seed = checked("seed", int, seed)

    def problems(self, split):
        self.check_split(split)
        return [p for steps in self.steps for p in self._problems_of(split, steps)]

    @functools.cache  # noqa: B019 (lives as long as its run)
    def _problems_of(self, split, steps):
        draw = random.Random(f"{self.seed} {split} {steps}")
        kind = split, steps
        templates = [
            template
            for template in _templates()
            if (template["split"], len(template["steps"])) == kind
            and _fill(template, self.largest_number, random.Random(0))
        ]
        problems: dict[str, Problem] = {}
        in_vain = 0
        # In turns, though a template without names has only some hundred problems.
        for template in itertools.cycle(templates):
            if len(problems) == self.counts[split]:
                break
            if in_vain == _TRIES:
                rule = (
                    f"larger, or {split}_problems at most {len(problems)}: there are "
                    f"no more problems of {steps} step(s) with such small numbers"
                )
                raise invalid("largest_number", rule, self.largest_number)
            in_vain += 1
            question, answer = _fill(template, self.largest_number, draw) or ("", 0)
            if question and question not in problems:
                in_vain = 0
                problems[question] = Problem(
                    id=f"{split}-{steps}-{len(problems)}",
                    question=question,
                    answer=str(answer),
                    problem_class=_problem_class(steps),
                )
        return tuple(problems.values())

    @functools.cached_property
    def few_shot_examples(self):
        """Four worked examples of each number of steps, with all operations."""
        classes = {_problem_class(steps) for steps in self.steps}
        return [e for e in own_examples(self) if e.problem.problem_class in classes]

    def extract_answer(self, completion):
        """The number behind the last marker, on the same line; see `read_number`."""
        _, found, answer = completion.rpartition(self.answer_marker)
        return read_number(answer.strip().partition("\n")[0]) if found else None

    def extract_answer_flexible(self, completion):
        """The strict reading, or else the last number, see `last_number`."""
        return self.extract_answer(completion) or last_number(completion)

    def working_fault(self, completion, problem):
        """See `equation_fault`."""
        return equation_fault(completion, problem.answer)


def _problem_class(steps):
    return "1 step" if steps == 1 else f"{steps} steps"


@functools.cache
def _templates():
    path = Path(__file__).parent / "templates" / "word_problems.jsonl"
    templates = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for template in templates:
        template["steps"] = [step.split() for step in template["steps"]]
    return templates


def _fill(template, largest, draw):
    """A question of a template, and its answer; `None` if no draw fits."""
    numbers = template["numbers"].items()
    bounds = {name: (low, min(high, largest)) for name, (low, high) in numbers}
    if any(low > high for low, high in bounds.values()):
        return None
    for _ in range(_TRIES):
        drawn = {name: draw.randint(*both) for name, both in bounds.items()}
        answer = _solve(template["steps"], dict(drawn), largest)
        if answer is not None:
            break
    else:
        return None
    text = _ALTERNATIVES.sub(
        lambda found: draw.choice(found[1].split("|")), template["text"]
    )
    nouns = {noun: draw.choice(words.split()) for noun, words in _NOUNS.items()}
    name, other = draw.sample(_NAMES.split(), 2)
    return text.format(name=name, other=other, **nouns, **drawn), answer


def _solve(steps, values, largest):
    """The last step's result, `None` if one is no integer from 1 to `largest`."""
    for result, (left, operator, right) in zip("xyz", steps, strict=False):
        left, right = (values.get(n) or int(n) for n in (left, right))
        if operator == "/" and (left % right or left == right):
            return None
        values[result] = value = {
            "+": left + right,
            "-": left - right,
            "*": left * right,
            "/": left // right,
        }[operator]
        if not 0 < value <= largest:
            return None
    return value
