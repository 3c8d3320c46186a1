"""Grade-school math word problems (GSM8K).

One of its problems as the model sees it, with its official solution:

    Q: Natalia sold clips to 48 of her friends in April, and then she sold half as
    many clips in May. How many clips did Natalia sell altogether in April and May?
    A: Natalia sold 48/2 = <<48/2=24>>24 clips in May.
    Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.
    #### 72

`<<48/2=24>>` is a calculator annotation. A hint is the final answer, never
the solution.
"""

import ast
import decimal
import functools
import hashlib
import operator
import re
from pathlib import Path

from star_keras.tasks.sources import read_problems, tfds_records
from star_keras.tasks.task import Problem, Task

_FILES = {"train": "train.jsonl", "test": "test.jsonl"}
_URL = (
    "https://raw.githubusercontent.com/openai/grade-school-math/master/"
    "grade_school_math/data/train.jsonl"
)
# No sign where it may be a minus between two numbers.
_NUMBER = re.compile(
    r"(?<![\w.)])-?\s?\$?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)|\d[\d,]*(?:\.\d+)?"
)
_STRICT = re.compile(r"####\s*([^\n]*)")
_ANNOTATION = re.compile(r"<<([^<>]*)>>")


class GSM8K(Task):
    """GSM8K, 7,473 training and 1,319 test problems.

    The split `"test"` is the official test set, for the final model. The split
    `"eval"` is held out of the official training set. An id is a digest of the
    question and decides the order, so all sources have the same problems.

    Args:
        data_dir: Directory with the official `train.jsonl` and `test.jsonl`.
            By default TensorFlow Datasets downloads them.
        train_path: A JSON-lines file in place of the official one, with
            `question` and `answer` (a number, or a solution that ends in
            `#### number`).
        eval_path: The same for `"eval"`; then no training problem is held out.
        validation_problems: Number of training problems held out.

    Raises:
        ValueError: if `validation_problems` is negative; by `problems`, if a
            line is malformed.
        ConnectionError: by `problems`, if the download fails.
        FileNotFoundError: by `problems`, if a file is missing.

    Reference:
        [Training Verifiers to Solve Math Word Problems](https://arxiv.org/abs/2110.14168).
    """

    name = "gsm8k"
    stop = ("\nQ:",)
    splits = ("train", "eval", "test")

    def __init__(
        self, data_dir=None, train_path=None, eval_path=None, validation_problems=500
    ):
        if validation_problems < 0:
            raise ValueError(
                "Invalid value for argument `validation_problems`. Expected 0 or "
                f"more. Received: validation_problems={validation_problems}."
            )
        self._data_dir = data_dir
        self._paths = {"train": train_path, "eval": eval_path}
        self.validation_problems = validation_problems

    def problems(self, split):
        if self._paths.get(split):
            return self._read(split)
        if split == "test":
            return self._read("test")
        train = self._read("train")
        if self._paths["eval"]:
            return train
        held_out = self.validation_problems
        if split == "train" and held_out >= len(train):
            raise ValueError(
                "Invalid value for argument `validation_problems`. Expected fewer "
                f"than the {len(train)} training problems. Received: "
                f"validation_problems={held_out}."
            )
        return train[:held_out] if split == "eval" else train[held_out:]

    @functools.cache  # noqa: B019 (lives as long as its run)
    def _read(self, split):
        path = self._paths.get(split)
        if path is None and self._data_dir is not None:
            path = Path(self._data_dir) / _FILES[split]
        if path is not None:
            problems, _ = read_problems(path, self.make_problem, split)
        else:
            records = tfds_records(
                lambda tfds: tfds.builder("gsm8k"), split, _URL, _FILES
            )
            problems = [self.make_problem(record, "") for record in records]
        return sorted(problems, key=lambda problem: problem.id)

    @functools.cached_property
    def few_shot_examples(self):
        path = Path(__file__).parent / "few_shot" / "gsm8k.jsonl"
        return read_problems(path, self.make_problem, "example")[1]

    def make_problem(self, record, default_id):
        problem = super().make_problem(record, default_id)
        question = " ".join(problem.question.split())
        answer = _number(problem.answer.rpartition("####")[2])
        if answer is None:
            raise ValueError(
                "expected a number as the answer, or a solution that ends in "
                f"'#### number'. Received: {problem.answer!r}."
            )
        digest = hashlib.sha256(question.encode()).hexdigest()[:16]
        return Problem(
            id=str(record.get("id", digest)),
            question=question,
            answer=answer,
            problem_class=problem.problem_class,
        )

    def format_response(self, rationale, problem):
        steps = f" {rationale}\n" if rationale else " "
        return f"{steps}#### {problem.answer}"

    def extract_answer(self, completion):
        found = _STRICT.findall(completion)
        return _number(found[-1]) if found else None

    def extract_answer_flexible(self, completion):
        found = _NUMBER.findall(_ANNOTATION.sub("", completion))
        return _number(found[-1]) if found else None

    def working_is_valid(self, completion, problem):
        """Whether all calculator annotations of a completion are true."""
        return all(_equation_holds(text) for text in _ANNOTATION.findall(completion))

    def rationale_key(self, completion):
        """The list of its equations, or the text where it has none.

        Reference:
            [Scaling Relationship on Learning Mathematical Reasoning](https://arxiv.org/abs/2308.01825),
            section 3.3, which tells rationales apart by their equations.
        """
        equations = [e.replace(" ", "") for e in _ANNOTATION.findall(completion)]
        return "\n".join(equations) or super().rationale_key(completion)


def _number(text):
    """The normal form of a number like `"$1,080.50."`, or `None`."""
    text = text.strip().strip("*").rstrip(".").replace(",", "").replace("$", "")
    text = re.sub(r"\s+", "", text.rstrip("%"))
    if not re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)", text, re.ASCII):
        return None
    value = format(decimal.Decimal(text), "f")
    if "." in value:
        value = value.rstrip("0").rstrip(".")
    return "0" if value in ("-0", "") else value


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _value(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError("no arithmetic")


def _equation_holds(equation):
    """Whether `"20/3=6.67"` is true to the last decimal that it gives."""
    left, _, right = equation.replace(",", "").replace("%", "/100").rpartition("=")
    try:
        sides = [
            # Leading zeros are no Python.
            _value(ast.parse(re.sub(r"(?<![\d.])0+(?=\d)", "", side), mode="eval").body)
            for side in (left.strip(), right.strip())
        ]
    except (ValueError, SyntaxError, ZeroDivisionError, OverflowError, RecursionError):
        return False
    decimals = len(right.strip().partition(".")[2])
    # Rounded or cut off; the rest is for floating-point errors.
    return abs(sides[0] - sides[1]) < 10.0**-decimals * (1 - 1e-9) + 1e-9
