import collections
import dataclasses
import json

import pytest

from star_keras import tasks
from star_keras.callbacks import StarIterationCallback
from star_keras.config import OptimizerConfig, SelectionConfig, StarConfig
from star_keras.models import load_causal_lm
from star_keras.outer_loop.console_summary import show_start
from star_keras.outer_loop.pairs import check_pairs
from star_keras.outer_loop.progress import Progress
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.selection import select
from star_keras.outer_loop.votes import Votes
from star_keras.storage.records import GradedSample
from star_keras.storage.run_files import RunFiles
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.training import compile_model
from tests.callbacks.conftest import all_samples, fit, make_config, metrics

TASK = Doubling(train=8, held_out=2)
PROBLEMS = {problem.id: problem for problem in TASK.problems("train")}
MAJORITY = {
    "answers": "majority",
    "rationalize": False,
    "samples_per_problem": 4,
}


def samples(*answers, problem="double-3"):
    return [
        GradedSample(
            iteration=1,
            problem=problem,
            problem_class="",
            sample=number,
            kind="rationale",
            completion=f" {answer} + 0 = {answer}. The answer is {answer}.",
            num_tokens=1,
            finish_reason="stop",
            answer=answer,
            verdict="correct" if answer == "6" else "incorrect",
        )
        for number, answer in enumerate(answers)
    ]


def test_the_majority_is_right_whatever_the_answer_is():
    first = samples("5", "6", None, "5", "7")
    second = samples("8", "8", "1", problem="double-4")
    votes = Votes([*first, *second])
    assert votes.winners == {"double-3": "5", "double-4": "8"}
    assert votes.agreement == {"double-3": 2 / 5, "double-4": 2 / 3}
    config = SelectionConfig(answers="majority", weigh_by_problem=True)
    found = select(TASK, [[*first, *second]], config, seed=0, votes=votes)
    reasons = ["", "outvoted", "unparsed", "", "outvoted", "", "", "outvoted"]
    assert [s.reason for s in found] == reasons
    assert [s.weight for s in found] == [1 / 5, 0, 0, 1 / 5, 0, 1 / 3, 1 / 3, 0]
    assert not any(s.is_wrong for s in found)
    shares = votes.metrics(TASK, PROBLEMS)
    assert shares == {"agreement": (2 / 5 + 2 / 3) / 2, "majority_accuracy": 1 / 2}


def test_of_a_tie_the_first_answer_wins_and_without_answers_none():
    votes = Votes([*samples("7", "6"), *samples(None, None, problem="double-4")])
    assert votes.winners == {"double-3": "7", "double-4": None}
    assert votes.agreement == {"double-3": 1 / 2, "double-4": 0}
    assert votes.metrics(TASK, PROBLEMS)["majority_accuracy"] == 0


def test_problems_without_an_answer_do_not_count_in_the_accuracy_of_votes():
    votes = Votes([*samples("5", "5"), *samples("8", "1", problem="double-4")])
    unknown = dataclasses.replace(PROBLEMS["double-3"], answer=None)
    problems = PROBLEMS | {"double-3": unknown}
    metrics = {"agreement": 3 / 4, "majority_accuracy": 1}
    assert votes.metrics(TASK, problems) == metrics
    unknown = dataclasses.replace(PROBLEMS["double-4"], answer=None)
    assert votes.metrics(TASK, problems | {"double-4": unknown}) == {"agreement": 3 / 4}


def test_equations_are_checked_as_well():
    config = SelectionConfig(answers="majority", check_equations=True)
    group = samples("5", "5", "6")
    wrong = " 1 + 1 = 5. The answer is 5."
    group[1] = dataclasses.replace(group[1], completion=wrong)
    found = select(TASK, [group], config, seed=0, votes=Votes(group))
    assert [s.reason for s in found] == ["", "false_equation", "outvoted"]


def voting(request):
    """Three samples of four agree; on a wrong answer for multiples of 3."""
    n = int(request.name.removeprefix("double-"))
    answer = 2 * n + (n % 3 == 0)
    return f" The answer is {answer if request.seed[2] else answer + 5}."


def make(make_model, path, task=TASK):
    sampler = ScriptedSampler(voting)
    config = make_config(**MAJORITY)
    return StarIterationCallback(make_model(), task, path, config, sampler=sampler)


def test_a_run_trains_on_the_majority_and_resumes(make_model, tmp_path):
    star = make(make_model, tmp_path / "whole")
    fit(star, 2)
    groups = collections.defaultdict(list)
    for sample in star.run.samples.load(1, "rationale"):
        groups[sample.problem].append(sample.answer)
    expected = {name: max(group, key=group.count) for name, group in groups.items()}
    kept = list(star.run.samples.load_kept(1))
    assert len(kept) == sum(g.count(expected[name]) for name, g in groups.items())
    for sample, selection in kept:
        group = groups[sample.problem]
        assert sample.answer == expected[sample.problem]
        assert selection.weight == group.count(sample.answer) / len(group)
    right = [expected[name] == PROBLEMS[name].answer for name in groups]
    line = star.run.metrics(1)
    assert 0 < line["majority_accuracy"] == sum(right) / len(right) < 1
    fit(make(make_model, tmp_path / "cut"), 1)
    cut = make(make_model, tmp_path / "cut")
    fit(cut, 2)
    assert all_samples(star) == all_samples(cut)
    assert metrics(star) == metrics(cut)


class Questions(Doubling):
    """The training problems without answers, all of them or even ones alone."""

    def __init__(self, known=()):
        super().__init__(train=8, held_out=2)
        self._known = known

    def problems(self, split):
        return [
            dataclasses.replace(problem, answer=None)
            if split == "train" and problem.problem_class not in self._known
            else problem
            for problem in super().problems(split)
        ]


def test_answers_that_are_missing_change_no_training_set(make_model, tmp_path):
    known = make(make_model, tmp_path / "known")
    fit(known, 1)
    star = make(make_model, tmp_path / "questions", Questions(known=["odd"]))
    fit(star, 1)
    kept = [
        [(sample.problem, sample.completion, choice) for sample, choice in own]
        for own in (run.run.samples.load_kept(1) for run in (known, star))
    ]
    assert kept[0] == kept[1]
    true, line = known.run.metrics(1), star.run.metrics(1)
    for name in ("eval_accuracy", "agreement", "unparsed", "share_kept"):
        assert line[name] == true[name]
    # Of the problems with an answer alone.
    assert line["train_accuracy"] == line["train_accuracy/odd"]
    assert line["train_accuracy"] == true["train_accuracy/odd"]
    assert true.keys() - line.keys() == {"train_accuracy/even"}
    verdicts = collections.defaultdict(set)
    for sample in star.run.samples.load(1, "rationale"):
        verdicts[sample.problem_class].add(sample.verdict)
    assert verdicts == {"even": {"unknown"}, "odd": {"correct", "incorrect"}}
    # The page of the run shows their questions.
    files = RunFiles(star.run_dir)
    answers = [line["answer"] for line in files.problems()]
    assert answers[:4] == [None, "2", None, "6"]
    assert not files.faults


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (
            ["odd"],
            "4 of 8 training problems have no answer: train_accuracy and "
            "majority_accuracy are those of the other 4",
        ),
        (
            [],
            "8 of 8 training problems have no answer: train_accuracy and "
            "majority_accuracy are left out",
        ),
        (["odd", "even"], ""),
    ],
)
def test_the_first_lines_of_a_run_count_missing_answers(known, text, capsys):
    task = Questions(known)
    problems = {split: task.problems(split) for split in ("train", "eval")}
    show_start(Progress(), problems, PromptBuilder(task), StarConfig())
    assert " ".join(capsys.readouterr().out.split()) == text


@pytest.mark.slow
def test_a_file_of_questions_trains_a_model_as_one_with_answers(tmp_path):
    form = {"question": "Input:\n{question}\nTarget:\n", "answer_marker": "</scratch>"}
    form["hint"] = "Input:\n{question}\nTarget: {answer}\n"
    write(tmp_path / "form.jsonl", {"format": {**form, "stop": ["\n\n"]}})
    # The model adds two digits, and guesses at three.
    sums = [(17, 25), (48, 36), (50, 29), (193, 298), (764, 577)]
    lines = [
        {"question": " + ".join(map(spaced, pair)), "answer": spaced(sum(pair))}
        for pair in sums
    ]
    held_out, *train = lines
    write(tmp_path / "eval.jsonl", held_out)
    write(tmp_path / "answers.jsonl", *train)
    questions = [{"question": line["question"]} for line in train]
    write(tmp_path / "questions.jsonl", *questions)
    found = {}
    for name in ("answers", "questions"):
        task = tasks.get(
            "jsonl",
            train_path=tmp_path / f"{name}.jsonl",
            eval_path=tmp_path / "eval.jsonl",
            prompts_file=tmp_path / "form.jsonl",
        )
        model = load_causal_lm("arithmetic_base")
        compile_model(model, OptimizerConfig(learning_rate=1e-4))
        config = make_config(
            **MAJORITY, few_shot=False, max_new_tokens=64, temperature=1.5
        )
        star = StarIterationCallback(model, task, tmp_path / name, config)
        star.fit(1, verbose=0)
        kept = list(star.run.samples.load_kept(1))
        found[name] = [(s.problem, s.completion, choice) for s, choice in kept]
        verdicts = {sample.verdict for sample, _ in kept}
        metrics = star.run.metrics(1)
        assert metrics["loss"] > 0
        if name == "answers":
            assert "correct" in verdicts
            assert "train_accuracy" in metrics
        else:
            assert verdicts == {"unknown"}
            assert "train_accuracy" not in metrics
    assert found["answers"] == found["questions"]
    assert len(found["questions"]) < len(train) * MAJORITY["samples_per_problem"]


def spaced(number):
    return " ".join(str(number))


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    "setting",
    [
        {"samples_per_problem": 1},
        {"rationalize": True},
        {"kept_per_problem": 1, "max_samples_per_problem": 9},
        {"sample_until_trained": True},
        {"mastered_after": 1},
        {"order": "adaptive"},
        {"check_working": True},
        {"drop_lowest": 0.5},
    ],
)
def test_what_needs_an_answer_is_refused(setting):
    make_config(**MAJORITY)
    name = next(iter(setting))
    with pytest.raises(ValueError, match=f"`{name}`.*answers='majority'"):
        make_config(**MAJORITY | setting)


def test_pairs_need_known_answers():
    with pytest.raises(ValueError, match="`answers`.*objective='rpo'"):
        check_pairs(make_config(**MAJORITY))
