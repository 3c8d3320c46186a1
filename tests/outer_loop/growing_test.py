import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.config import RunConfig, SamplingConfig, StarConfig
from star_keras.outer_loop.growing import open_problems
from star_keras.tasks import Arithmetic
from star_keras.testing import Doubling, ScriptedSampler
from tests.callbacks.conftest import all_samples, fit, make_config, metrics

TASK = Doubling(train=8, held_out=2)


def test_a_solved_class_opens_the_next_one_and_none_closes():
    problems = Arithmetic(digits=[10, 9, 2], train_problems=2).problems("train")
    shares = {  # of 2, 9 and 10 digits after iterations 0 to 4
        "2": [0.0, 0.8, 0.9, 0.1, 0.0],
        "9": [0.9, 0.9, 0.7, 0.8, 0.8],
        "10": [0.9, 0.9, 0.9, 0.9, 0.9],
    }

    def measured(iteration):
        return {f"eval_accuracy/{n}_digits": x[iteration] for n, x in shares.items()}

    config = SamplingConfig(first_classes=1, grow_at=0.8)
    found = []
    for iteration in range(1, 6):
        some = open_problems(problems, iteration, measured, config)
        assert [p for p in problems if p in some] == some
        found.append({p.problem_class for p in some})
    first, second = {"2_digits"}, {"2_digits", "9_digits"}
    assert found == [first, second, second, second | {"10_digits"}, found[3]]
    assert open_problems(problems, 1, measured, SamplingConfig()) == problems


def improving(request):
    """Right from the model of the first iteration on."""
    n = int(request.name.removeprefix("double-"))
    return f" The answer is {2 * n if request.seed[0] or n % 2 else 1}."


def make(make_model, path, task=TASK, **settings):
    config = make_config(**{"first_classes": 1, **settings})
    sampler = ScriptedSampler(improving)
    return StarIterationCallback(make_model(), task, path, config, sampler=sampler)


def test_a_resumed_run_grows_as_one_that_was_not_interrupted(make_model, tmp_path):
    star = make(make_model, tmp_path / "whole")
    fit(star, 2)
    sampled = [
        {s.problem_class for s in star.run.samples.load(n, "rationale")} for n in (1, 2)
    ]
    assert sampled == [{"even"}, {"even", "odd"}]
    fit(make(make_model, tmp_path / "cut"), 1)
    cut = make(make_model, tmp_path / "cut")
    fit(cut, 2)
    assert all_samples(star) == all_samples(cut)
    assert metrics(star) == metrics(cut)


def test_a_task_without_classes_to_add_is_refused(make_model, tmp_path):
    with pytest.raises(ValueError, match="`first_classes`. Expected below .* 2"):
        make(make_model, tmp_path, first_classes=2)
    with pytest.raises(ValueError, match="`first_classes`.*held-out .* 'odd'"):
        make(make_model, tmp_path, Doubling(train=8, held_out=1))
    with pytest.raises(ValueError, match="`grow_at`. Expected 0.9 without"):
        SamplingConfig(grow_at=0.5)
    with pytest.raises(ValueError, match="`first_classes`.*skip_eval"):
        StarConfig(
            sampling=SamplingConfig(first_classes=1), run=RunConfig(skip_eval=True)
        )
