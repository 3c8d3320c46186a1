import time

import pytest

from star_keras.tasks.equations import (
    equation_fault,
    equation_holds,
    find_equations,
)


@pytest.mark.parametrize(
    "text, equations",
    [
        ("13 cakes + 154 = 63. The answer is 63.", ["13 + 154=63"]),
        ("They bake 12 + 30 = 42 rolls.", ["12 + 30=42"]),
        ("3 boxes * 4 apples/box = 12 apples", ["3 * 4=12"]),
        ("3 x 4 = 12, 3x4 = 12, 3 × 4 = 12", ["3 * 4=12", "3*4=12", "3 * 4=12"]),
        (r"\(3 \times 4 = 12\) and \[12 \div 4 = 3\]", ["3 * 4=12", "12 / 4=3"]),
        ("It costs $1,200 - $200 = $1,000.", ["1200 - 200=1000"]),
        ("5 − 2 = 3", ["5 - 2=3"]),
        ("(2 + 3) * 4 = 20", ["(2 + 3) * 4=20"]),
        ("So (2 + 3 = 5) eggs", ["2 + 3=5"]),
        ("20% * 50 = 10, or 25 / 50 = 50%", ["20% * 50=10", "25 / 50=50%"]),
        ("25 / 50 = 50 percent", ["25 / 50=50%"]),
        ("6*12=<<6*12=72>>72 rolls", ["6*12=72"]),
        ("2 + 3 = 5 + 1 = 6", ["2 + 3=5 + 1", "5 + 1=6"]),
        ("2 + 3 = 5 apples, and 5 + 1 = 6", ["2 + 3=5", "5 + 1=6"]),
        ("1. 3 + 4 = 7\n- 7 + 1 = 8\n* 8 - 2 = 6", ["3 + 4=7", "7 + 1=8", "8 - 2=6"]),
        ("**3 + 4 = 7**", ["3 + 4=7"]),
        ("On day 2 he sold 3 + 4 = 7 of the 9 hats.", ["3 + 4=7"]),
        ("12 - 5 = 7, 7 - 2 = 5", ["12 - 5=7", "7 - 2=5"]),
        ("-3 + 5 = 2 and .5 * 4 = 2.0", ["-3 + 5=2", ".5 * 4=2.0"]),
        ("5 x -2 = -10 and 5 x (-2) = -10", ["5 * -2=-10", "5 * (-2)=-10"]),
        ("2 1/2 + 2 1/2 = 5", ["2 1/2 + 2 1/2=5"]),
        ("10/4 = 2 1/2 hours, 1 - 2 1 / 2 = -1.5", ["10/4=2 1/2", "1 - 2 1 / 2=-1.5"]),
        ("24/4 = 6 5-minute walks, 24/4 = 6 times", ["24/4=6", "24/4=6"]),
        # False whatever is meant.
        ("10/4 = 2 1/3. 5 x -2 = 10", ["10/4=2 1/3", "5 * -2=10"]),
        ("7 / 2 = 4, 12/4 apples = 4 apples", ["7 / 2=4", "12/4=4"]),
        # Not plain arithmetic, or only a part of it.
        ("2 5/4 + 1 = 4.25, 10/4 = 1 6/4", []),
        (r"10/4 = 2½, 10/4 = 2 ½, 10/4 = 2 \frac{1}{2}, 17/3 = 5 and 2/3", []),
        ("7 / 2 = 3 remainder 1, 10 / 4 = 2 R 2, 7 / 2 = 3 (r. 1)", []),
        ("7 / 2 = 3 with 1 left over", []),
        ("3 / 1/4 = 12, 3/4 hour = 45 minutes, 1 1/2 hours = 90 minutes", []),
        ("5 000 + 1 = 5 001, 250 * 12 = 3 000", []),
        ("3x-5 = 16, 5 x - 2 = 8, 3 x + 4 = 10", []),
        ("5 times -2 = -10, 5 squared - 5 = 20, 6*4 = 12 times 2", []),
        ("10 divided by 2 + 1 = 6", []),
        ("No equation, 3 + 4 is 7.", []),
        ("1 hour = 60 minutes", []),
        ("x = 3 and 2x + 4 = 10", []),
        ("2x + 4 + 1 = 11", []),
        ("2**3 = 8, 2^3 + 1 = 9", []),
        ("half of 10 + 2 = 7, 20% of 50 + 5 = 15", []),
        ("3 + 4 = 7x, 3 + 4 = 7^1", []),
        ("3(4) + 1 = 13", []),
        ("3 +\n4 = 7", []),
        ("3 + (4 = 7", []),
        ("= 3 + 4 =", []),
        ("", []),
    ],
)
def test_equations_are_found_among_words(text, equations):
    assert find_equations(text) == equations


@pytest.mark.parametrize(
    "equation, holds",
    [
        ("2+3=5", True),
        ("2+3=6", False),
        ("20/3=6.67", True),
        ("20/3=6.66", True),
        ("20/3=6.7", True),
        ("20/3=6.8", False),
        ("25/50=50%", True),
        ("25/50=51%", False),
        ("1/8=12.5%", True),
        ("1/8=12.6%", False),
        ("1,000+1=1,001", True),
        ("007+1=8", True),
        ("2 + 3=5 + 1", False),
        ("1/0=1", False),
        ("2**3=8", False),
        ("a+1=2", False),
        ("5", False),
        ("10/4=2 1/2", True),
        ("-2 1/2 * 2=-5", True),
        ("2 1/2=2", False),
        ("2 3/2=3.5", False),
        ("(" * 300 + "1=1", False),
    ],
)
def test_an_equation_holds_to_its_last_decimal(equation, holds):
    assert equation_holds(equation) is holds


@pytest.mark.parametrize(
    "text, answer, fault",
    [
        ("12 + 30 = 42. The answer is 42.", "42", ""),
        ("12 + 30 = 42. 42 - 2 = 40. The answer is 40.", "40", ""),
        ("13 cakes + 154 = 63. The answer is 63.", "63", "false_equation"),
        ("1 + 1 = 3. 60 + 3 = 63. The answer is 63.", "63", "false_equation"),
        ("1 + 1 = 2. The answer is 63.", "63", "no_equation"),
        ("The answer is 63.", "63", "no_equation"),
        ("7 / 3 = 2.33. The answer is 7/3.", "7/3", ""),
        ("5 3/4 - 1/4 = 5 1/2", "5.5", ""),
        ("10 / 4 = 2 1/2 - 1 = 1.5", "1.5", "false_equation"),
        ("5 - 8 = -3. The answer is -3.", "-3", ""),
    ],
)
def test_a_rationale_needs_true_equations_and_one_with_the_answer(text, answer, fault):
    assert equation_fault(text, answer) == fault


@pytest.mark.parametrize(
    "piece", ["1 + ", "(1", "1 a ", "= 1", "a / ", "1)", "- ", "1.", "1 1/2 "]
)
def test_long_texts_take_no_time(piece):
    start = time.process_time()
    find_equations(piece * 20_000 + " = " + piece * 20_000)
    # Now 0.1 s; a pattern that backtracks over the text takes up to minutes.
    assert time.process_time() - start < 5
