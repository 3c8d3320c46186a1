r"""Competition mathematics (MATH), with answers in LaTeX.

One of its worked examples:

    Q: Two fair dice are rolled. What is the probability that the sum is at least $10$?
    A: There are $6\cdot6=36$ equally likely rolls. The sum $10$ comes up in $3$ ways,
    $11$ in $2$ ways and $12$ in $1$ way. That is $3+2+1=6$ rolls, so the probability is
    $\frac{6}{36}=\frac{1}{6}$. The answer is $\boxed{\frac{1}{6}}$.

A record of the Hub has `problem`, `level`, `type` (or `subject`) and `solution`, whose
last `\boxed{...}` is the answer, or an `answer`.
"""

import re

from star_keras.tasks import checkers
from star_keras.tasks.jsonl import JsonLines
from star_keras.tasks.latex import last_boxed
from star_keras.tasks.read_number import last_number
from star_keras.tasks.record_fields import optional_text
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

_CLASSES = ("level", "subject", "both")
_ON_THE_HUB = {"question": "problem", "subject": "type", "id": "unique_id"}
_IN_DOLLARS = re.compile(r"\$([^$]+)\$")


class HendrycksMath(JsonLines):
    """MATH from `train_path` and `eval_path`; answers are compared by math-verify.

    Args:
        train_path: Problems to train on. Its lines with a `rationale` replace the
            worked examples.
        eval_path: Held-out problems.
        class_by: The class of a problem: its `"level"`, its `"subject"`, or `"both"`.
            A field `class` of a record comes before.

    Raises:
        ValueError, FileNotFoundError, ConnectionError, ImportError: see `JsonLines`.
        RuntimeError: by the methods that compare answers, if math-verify does not
            start.

    Reference:
        [Measuring Mathematical Problem Solving](https://arxiv.org/abs/2103.03874).
    """

    name = "math"
    has_examples = True
    stop = ("\nQ:",)
    answer_marker = r"\boxed"
    hint_format = "Q: {question} (${answer}$)\nA:"
    format_fields = ("question", "hint", "stop")
    system_text = (
        r"Reason step by step. End with the answer in \boxed{}, without units."
    )
    checker = staticmethod(checkers.math)

    def __init__(self, train_path, eval_path, class_by: str = "level"):
        super().__init__(train_path, eval_path)
        self.class_by = checked("class_by", str, class_by, choices=_CLASSES)

    def make_problem(self, record, default_id):
        record = dict(record)
        for name, other in _ON_THE_HUB.items():
            if record.get(name) is None and record.get(other) is not None:
                record[name] = record[other]
        solution = optional_text(record, "solution")
        if optional_text(record, "answer") is None and solution is not None:
            record["answer"] = last_boxed(solution)
            if record["answer"] is None:
                rule = r"a text with an answer in its last `\boxed{...}`"
                remedy = "Add an `answer`, or leave the line out."
                raise invalid("solution", rule, solution, remedy)
        answer = optional_text(record, "answer")
        if answer is not None:
            record["answer"] = " ".join((last_boxed(answer) or answer).split())
        if optional_text(record, "class") is None:
            record["class"] = self._class_of(record)
        return super().make_problem(record, default_id)

    def _class_of(self, record):
        parts = []
        if self.class_by != "level":
            parts.append(optional_text(record, "subject"))
        level = optional_text(record, "level")
        if self.class_by != "subject" and level is not None:
            parts.append(f"level {level.lower().removeprefix('level ')}")
        return ", ".join(part.lower() for part in parts if part)

    def format_response(self, rationale, problem):
        rationale = f" {rationale}" if rationale else ""
        return f"{rationale} The answer is $\\boxed{{{problem.answer}}}$."

    def extract_answer(self, completion):
        r"""The content of the last `\boxed{...}`."""
        answer = last_boxed(completion)
        return " ".join(answer.split()) if answer else None

    def extract_answer_flexible(self, completion):
        """The strict reading, else the text after "answer is", else the last number."""
        answer = self.extract_answer(completion)
        if answer is None:
            _, found, named = completion.rpartition("answer is")
            line = (named if found else "").partition("\n")[0].strip(" :.")
            found = _IN_DOLLARS.search(line)
            answer = found[1].strip() if found else line
        return answer or last_number(completion)
