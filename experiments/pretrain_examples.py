"""Examples for pretraining the base model of the arithmetic runs.

What the model is shown, all of it in the scratchpad's form:

- additions of one and two digits, with their working;
- at most `--worked_examples` worked additions of each longer length;
- string tasks of any length that are no additions, in place of a language
  model's general skills. They line two strings of digits up from the right and
  copy one digit a line, from where the mark between the strings says:

      &  the first string
      |  the second string
      ~  a third string, which the prompt shows like a hint

Some prompts of each kind show the answer as a hint. What `Arithmetic` holds out
for evaluation, up to `--held_out` problems a length, is not shown; but for the
100 sums of one digit, which nothing else could teach.
"""

from star_keras.tasks import Problem
from star_keras.tasks.arithmetic import Arithmetic, make_problem, scratchpad

OPERATIONS = "&|~"
TASK = Arithmetic()


def draw_number(draw, n):
    low, high = (0, 9) if n == 1 else (10 ** (n - 1), 10**n - 1)
    return str(draw.randint(low, high))


def draw_operands(draw, n, held_out):
    """Operands of an addition whose problem id is not in `held_out`."""
    while True:
        first, second = draw_number(draw, n), draw_number(draw, n)
        if make_problem(first, second).id not in held_out:
            return first, second


def copy_digits(operation, first, second, third):
    """The working and the answer of a string task."""
    source = {"&": first, "|": second, "~": third}[operation]
    lines = []
    for kept in range(len(first), 0, -1):
        left = [*first[:kept], operation, *second[:kept], ","]
        lines.append(" ".join([*left, *source[kept:], "C: 0"]))
    lines.append(" ".join([",", *source, "C: 0"]))
    lines.append(" ".join(["0", *source]))
    return "\n".join(lines), " ".join(source)


def string_example(draw, n, hint):
    """A prompt and response of a random string task of `n` digits."""
    operation = draw.choice(OPERATIONS)
    first, second, third = (draw_number(draw, n) for _ in range(3))
    working, answer = copy_digits(operation, first, second, third)
    question = f"{' '.join(first)} {operation} {' '.join(second)}"
    problem = Problem(id=question, question=question, answer=answer)
    prompt = TASK.format_question(problem, hint=hint or operation == "~")
    return prompt, TASK.format_response(working, problem), 1.0


def addition_example(first, second, hint):
    """A prompt and response of a worked addition."""
    problem = make_problem(first, second)
    response = TASK.format_response(scratchpad(first, second), problem)
    return TASK.format_question(problem, hint=hint), response, 1.0


def mixture(
    draw, count, held_out, *, additions, worked=(0, ()), strings=(0, ()), hints=0
):
    """Random examples.

    Args:
        draw: A `random.Random`.
        count: Number of examples.
        held_out: Ids of problems that must not be shown.
        additions: Dict from a number of digits to its share.
        worked: Pairs of a share and a list of operand pairs.
        strings: Pair of a share and the numbers of digits.
        hints: Share of the prompts with a hint.
    """
    kinds = [*additions, "worked", "strings"]
    shares = [*additions.values(), worked[0], strings[0]]
    for kind in draw.choices(kinds, shares, k=count):
        hint = draw.random() < hints
        if kind == "worked":
            # Most with a hint: without one they are soon known by heart.
            yield addition_example(*draw.choice(worked[1]), draw.random() < 0.75)
        elif kind == "strings":
            yield string_example(draw, draw.choice(strings[1]), hint)
        else:
            yield addition_example(*draw_operands(draw, kind, held_out), hint)
