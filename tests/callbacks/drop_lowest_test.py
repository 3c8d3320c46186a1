"""Whole runs that do not train on the rationales that a verifier ranks lowest."""

import collections

import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.config import (
    OptimizerConfig,
    SamplingConfig,
    SelectionConfig,
    StarConfig,
)
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.verification import verifier_scores
from star_keras.testing import Doubling, ScriptedSampler, tiny_gpt_j
from star_keras.training import compile_model
from tests.callbacks.conftest import (
    all_samples,
    assert_equal_weights,
    examples,
    fit,
    make_config,
    metrics,
)

TASK = Doubling(train=8, held_out=2)


class Wordy(ScriptedSampler):
    """Right for odd numbers, with a hint for all but 4; interrupted after `left`."""

    def __init__(self, left=None):
        super().__init__(self.complete)
        self.left = left

    def complete(self, request):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        n, number, hinted = (
            int(request.name.removeprefix("double-")),
            *request.seed[2:4],
        )
        right = n != 4 if hinted else n % 2
        words = " so" * ((5 * n + 3 * number) % 7)
        return f" Well{words}. The answer is {2 * n if right else 1}."


@pytest.fixture(scope="module")
def verifier():
    return tiny_gpt_j(num_layers=1, hidden_dim=16, seed=5)


def make(make_model, path, verifier, sampler=None, **settings):
    model = make_model()
    config = make_config(
        samples_per_problem=3,
        skip_eval=True,
        weigh_by_problem=True,
        **{"drop_lowest": 0.32, **settings},
    )
    sampler = sampler or Wordy()
    star = StarIterationCallback(
        model, TASK, path, config, sampler=sampler, verifier=verifier
    )
    return star, model


def test_the_lowest_of_a_plain_sort_are_dropped(make_model, tmp_path, verifier):
    star, _ = make(make_model, tmp_path, verifier)
    fit(star, 1)
    samples = [
        sample
        for kind in ("rationale", "rationalization")
        for sample in star.run.samples.load(1, kind)
        if sample.verdict == "correct"
    ]
    prompts = PromptBuilder(TASK, few_shot=False)
    scores = verifier_scores(verifier, prompts, TASK.problems("train"), samples)
    assert len(set(scores)) == len(scores) == 4 * 3 + 3 * 3
    lowest = sorted(zip(scores, (s.key for s in samples), strict=True))[:6]
    decisions = star.run.samples.load_selection(1)
    dropped = {s.key for s in decisions if s.reason == "low_score"}
    assert dropped == {key for _, key in lowest}  # 0.32 of 21 is 6.72
    assert metrics(star)[-1]["not_kept/low_score"] == 6
    assert len(examples(star)) == len(samples) - 6
    left = collections.Counter(s.problem for s in samples if s.key not in dropped)
    for selection in decisions:
        if selection.weight:
            assert selection.weight == pytest.approx(1 / left[selection.problem])
    assert {s.reason for s in decisions} == {"", "incorrect", "low_score"}


def test_a_run_resumes_with_the_same_decisions(make_model, tmp_path, verifier):
    star, model = make(make_model, tmp_path / "whole", verifier)
    fit(star, 2)
    for left in (7, 40, 10):
        cut, _ = make(make_model, tmp_path / "cut", verifier, Wordy(left))
        with pytest.raises(KeyboardInterrupt):
            fit(cut, 2)
    cut, cut_model = make(make_model, tmp_path / "cut", verifier)
    fit(cut, 2)
    assert all_samples(star) == all_samples(cut)
    assert metrics(star) == metrics(cut)
    assert_equal_weights(model, cut_model)
    other = tiny_gpt_j(num_layers=1, hidden_dim=16, seed=6)
    with pytest.raises(ValueError, match="verifier: .* there, .* here"):
        fit(make(make_model, tmp_path / "cut", other)[0], 3)


def test_what_does_not_go_together_is_named(make_model, tmp_path, verifier):
    with pytest.raises(ValueError, match="`drop_lowest`. Expected 0 without a ver"):
        make(make_model, tmp_path, None)
    with pytest.raises(ValueError, match="`verifier`. Expected `None` with drop_low"):
        make(make_model, tmp_path, verifier, drop_lowest=0.0)
    with pytest.raises(ValueError, match="`verifier`. Expected a causal LM with"):
        make(make_model, tmp_path, object())

    def paired():
        model = make_model()
        compile_model(model, OptimizerConfig(objective="rpo"))
        return model

    with pytest.raises(ValueError, match="`drop_lowest`. Expected 0 with objective"):
        make(paired, tmp_path, verifier)
    selection = SelectionConfig(drop_lowest=0.5)
    excluded = {"direct": True, "sample_until_trained": True, "mastered_after": 1}
    for name, value in excluded.items():
        sampling = SamplingConfig(**{name: value})
        with pytest.raises(ValueError, match=f"`drop_lowest`. Expected 0 with {name}"):
            StarConfig(sampling=sampling, selection=selection)
