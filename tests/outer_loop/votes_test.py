import collections
import dataclasses

import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.config import SelectionConfig
from star_keras.outer_loop.pairs import check_pairs
from star_keras.outer_loop.records import GradedSample
from star_keras.outer_loop.selection import select
from star_keras.outer_loop.votes import Votes
from star_keras.testing import Doubling, ScriptedSampler
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


def make(make_model, path):
    sampler = ScriptedSampler(voting)
    config = make_config(**MAJORITY)
    return StarIterationCallback(make_model(), TASK, path, config, sampler=sampler)


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
