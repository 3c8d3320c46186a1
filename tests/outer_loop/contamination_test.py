import re

import pytest

from star_keras.config import RunConfig, SamplingConfig, StarConfig
from star_keras.outer_loop.console_summary import show_start
from star_keras.outer_loop.contamination import describe_repeats, find_contamination
from star_keras.outer_loop.progress import Progress
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks import Arithmetic, FewShotExample, Problem, Task, WordProblems


def problem(name, question):
    return Problem(id=name, question=question, answer="1")


class Copied(Task):
    name = "copied"
    few_shot_examples = (
        FewShotExample(problem=problem("shown", "What is 9 - 8?"), rationale="One."),
    )

    def problems(self, split):
        return {
            "train": [
                problem("t-0", "What is 2 - 1?"),
                problem("t-1", "Who are\n“they”, in  MÜNCHEN?"),
                problem("t-2", "?!"),
                problem("t-3", "Is it 1.5?"),
            ],
            "eval": [
                problem("e-0", "what is 2-1"),
                problem("e-1", "Who are they in München"),
                problem("e-2", "What is 2 + 1?"),
                problem("e-3", "What is 9 – 8?"),
                problem("e-4", "What is 9 - 8"),
                problem("e-5", "!?"),
                problem("e-6", "Is it 15? Is it 1 5?"),
                problem("e-7", "What is ２ - １?"),
            ],
        }[split]


PROBLEMS = {split: Copied().problems(split) for split in ("train", "eval")}
IN_TRAINING = {
    "e-0": "training problem t-0",
    "e-1": "training problem t-1",
    "e-7": "training problem t-0",
}


@pytest.mark.parametrize("few_shot", [True, False])
def test_copies_are_found_whatever_their_case_and_punctuation(few_shot):
    prompts = PromptBuilder(Copied(), few_shot=few_shot)
    found = find_contamination(PROBLEMS, prompts)
    shown = {"e-4": "worked example shown"} if few_shot else {}
    assert {p.id: place for p, place in found} == IN_TRAINING | shown


def are_the_same(first, second):
    problems = [problem("p", first), problem("q", second)]
    return bool(describe_repeats(problems, "problems"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("12 × 3", "12 ÷ 3"), ("√16", "16"), ("3 ≤ x", "3 ≥ x"), ("x ∈ A", "x ∉ A")),
        *(("5! + 1", "5 + 1"), ("n!/k!", "n/k!"), ("(n+1)!(n)", "(n+1)(n)")),
        *(
            ("x² + 1", "x2 + 1"),
            ("10⁻³", "10-3"),
            ("10²³", "10²^3"),
            ("a != b", "a = b"),
        ),
        *(("f'(x)", "f(x)"), ("f''(x)", "f'(x)"), ("y′ = y", "y = y"), ("2−3", "2 3")),
        *(("किताब का दाम", "कताब की दम"), ("C++", "C"), ("∑ a", "∏ a")),
    ],
)
def test_signs_tell_questions_apart(first, second):
    assert not are_the_same(f"What is {first}?", f"What is {second}?")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("2 − 1", "2 - 1"), ("x²", "x^2"), ("10⁻³", "10^{-3}"), ("f′(x)", "f'(x)")),
        *(("f″(x)", "f''(x)"), ("５！ + 1", "5!+1"), ("½", "1/2"), ("दाम।", "दाम")),
        ("a\u0338 =\u0338 b", "a\u0338 ≠ b"),
        # Apostrophes and quotes.
        *(
            ("don’t", "don't"),
            ("don´t", "don't"),
            ("don`t", "don't"),
            ("don t", "don't"),
        ),
        *(("the girls' room", "the girls room"), ("the ‘sum’, say", "the sum say")),
        ("plan 'b' = 5", "plan b = 5"),
        # Currencies, with and without LaTeX.
        *(("$5", "5"), ("$ 5", "$5"), (r"\$5", "$5"), ("€5", "$5"), ("50¢", "50 ¢")),
        *(("$5$ and $3$", "5 and 3"), ("$x + 1$", "x + 1")),
        # Ends of sentences, other text.
        *(("it! Now", "it. Now"), ("Plan B! He has 5! And", "Plan B. He has 5. And")),
        *(("❤\ufe0f", "❤"), ("| 1 | 2 |", "1 2"), ("~5 km", "5 km")),
    ],
)
def test_the_same_question_may_be_written_in_two_ways(first, second):
    assert are_the_same(f"What is {first}?", f"what  is {second}!")


def test_without_held_out_problems_nothing_is_seen_elsewhere():
    prompts = PromptBuilder(Copied())
    assert find_contamination({"train": PROBLEMS["train"]}, prompts) == []


def test_the_first_lines_of_a_run_name_them(capsys):
    show_start(Progress(), PROBLEMS, PromptBuilder(Copied()), StarConfig())
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("4 held-out problems are seen elsewhere")
    assert "e-0 (training problem t-0), e-1 (training problem t-1)" in text
    assert "e-4 (worked example shown)" in text


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        (["1", "2", "1", "1"], "2 of 4 problems repeat the question of an earlier one"),
        (["1", "2", "1", "5"], "2 of 4 problems .* one, 1 with another answer"),
        (["1", "2", None, "5"], "2 of 4 problems .* one, 1 with another answer"),
    ],
)
def test_problems_with_the_question_of_another_one_are_counted(answers, text):
    questions = "What is 2 - 1?", "What is 2 + 1?", "what is 2-1", "What is 2 - 1?"
    problems = [
        Problem(id=f"p{i}", question=question, answer=answer)
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    found = describe_repeats(problems, "problems")
    assert re.fullmatch(f"{text}: first p2, that of p0", found)
    assert describe_repeats(problems[:2], "problems") == ""


@pytest.mark.parametrize("task", [Arithmetic(train_problems=500), WordProblems()])
def test_tasks_that_make_their_problems_repeat_none(task):
    for split in task.splits:
        assert describe_repeats(task.problems(split), split) == ""


def test_the_first_lines_of_a_run_count_repeats_and_missing_problems(capsys):
    problems = {"train": [problem(f"t-{i}", "Who?") for i in range(3)]}
    problems["eval"] = [problem("e-0", "How?")]

    def lines(train, held_out):
        config = StarConfig(
            sampling=SamplingConfig(n_train_samples=train),
            run=RunConfig(n_eval_samples=held_out),
        )
        show_start(Progress(), problems, PromptBuilder(Copied()), config)
        return " ".join(capsys.readouterr().out.split())

    repeats = (
        "2 of 3 training problems repeat the question of an earlier one: first t-1, "
        "that of t-0"
    )
    assert lines(3, 1) == lines(None, None) == repeats
    assert lines(4, 5) == (
        "n_train_samples=4, but there are 3 training problems: all of them are drawn "
        f"{repeats} "
        "n_eval_samples=5, but there are 1 held-out problems: all of them are drawn"
    )
