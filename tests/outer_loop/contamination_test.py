import pytest

from star_keras.outer_loop import report
from star_keras.outer_loop.contamination import find_contamination
from star_keras.outer_loop.progress import Progress
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.tasks import FewShotExample, Problem, Task


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


def test_without_held_out_problems_nothing_is_seen_elsewhere():
    prompts = PromptBuilder(Copied())
    assert find_contamination({"train": PROBLEMS["train"]}, prompts) == []


def test_the_first_lines_of_a_run_name_them(capsys):
    report.show_start(Progress(), PROBLEMS, PromptBuilder(Copied()))
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("4 held-out problems are seen elsewhere")
    assert "e-0 (training problem t-0), e-1 (training problem t-1)" in text
    assert "e-4 (worked example shown)" in text
