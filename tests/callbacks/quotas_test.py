"""Quotas in whole runs: the continuous and the batch sampler, and a resume."""

import itertools

import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.config import SamplingConfig, SelectionConfig
from star_keras.outer_loop.comparison import read_run
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.quota_attempts import QuotaAttempts
from star_keras.outer_loop.quotas import make_quota
from star_keras.sampling import get_sampler
from star_keras.tasks import FewShotExample, Problem
from star_keras.testing import Doubling, ScriptedSampler, tiny_gpt_j
from tests.callbacks.conftest import (
    all_samples,
    assert_equal_weights,
    examples,
    fit,
    make_config,
    metrics,
)


class Odd(Doubling):
    """Takes the worked example for right, and what has characters of an odd sum."""

    few_shot_examples = (
        FewShotExample(
            problem=Problem(id="shown", question="What is twice 50?", answer="True"),
            rationale="A banana, a banana.",
        ),
    )

    def extract_answer(self, completion):
        return str("answer" in completion or sum(map(ord, completion)) % 2 == 1)

    def problems(self, split):
        problems = super().problems(split)
        return [type(p)(id=p.id, question=p.question, answer="True") for p in problems]


@pytest.mark.parametrize("name", ["continuous", "batch"])
def test_real_samplers_give_the_beginning_of_many_samples(name):
    task = Odd(train=6)
    prompts, problems = PromptBuilder(task), task.problems("train")
    model = tiny_gpt_j(num_layers=1, hidden_dim=16)
    sampler = get_sampler(
        model, name, max_new_tokens=24, batch_size=4, temperature=1.0, seed=3
    )

    def samples(**settings):
        quota = make_quota(task, SamplingConfig(**settings), SelectionConfig())
        attempts = QuotaAttempts(prompts, problems, sampler, quota, kind="rationale")
        attempts.sample(problems)
        return attempts.finish(problems)

    many = {(s.problem, s.sample): s for s in samples(samples_per_problem=12)}
    found = samples(kept_per_problem=2, max_samples_per_problem=12)
    assert [many[s.problem, s.sample] for s in found] == found
    for problem in problems:
        own = [s for s in found if s.problem == problem.id]
        right = [s.verdict == "correct" for s in own]
        assert [s.sample for s in own] == list(range(len(own)))
        assert sum(right) == 2 and right[-1] or len(own) == 12
    assert 2 * len(problems) < len(found) < len(many)


class Improving(ScriptedSampler):
    """Right in every third sample, or hinted in every second one."""

    def __init__(self, last=None):
        super().__init__(self.complete)
        self.last = last

    def complete(self, request):
        if self.last is not None:
            self.last -= 1
            if self.last < 0:
                raise KeyboardInterrupt
        n, number = int(request.name.removeprefix("double-")), request.seed[2]
        hinted = request.seed[3]
        right = number % 2 if hinted else n % 2 and number % 3 == 2
        return f" Way {number}. The answer is {2 * n if right else 1}."


SETTINGS = {
    "kept_per_problem": 2,
    "max_samples_per_problem": 5,
    "start_steps": 1,
    "add_steps": 0,
    "skip_eval": True,
}


def run(make_model, path, sampler):
    model = make_model()
    config = make_config(**SETTINGS)
    task = Doubling(train=8, held_out=1)
    star = StarIterationCallback(model, task, path, config, sampler=sampler)
    return star, model


def test_a_run_resumes_in_the_middle_of_its_quotas(make_model, tmp_path):
    star, model = run(make_model, tmp_path / "whole", Improving())
    fit(star, 2)
    # Odd ones have one right sample of five; even ones have two with a hint.
    assert len(examples(star)) == 4 * 1 + 4 * 2
    for last in (7, 30):  # within each phase
        cut, _ = run(make_model, tmp_path / "cut", Improving(last))
        with pytest.raises(KeyboardInterrupt):
            fit(cut, 2)
    cut, cut_model = run(make_model, tmp_path / "cut", Improving())
    fit(cut, 2)
    assert all_samples(star) == all_samples(cut)
    assert metrics(star) == metrics(cut)
    assert_equal_weights(model, cut_model)


def test_a_quota_of_a_greedy_sampler_is_refused(make_model, tmp_path):
    config = make_config(kept_per_problem=2, max_samples_per_problem=4)
    with pytest.raises(ValueError, match="`kept_per_problem`.*temperature"):
        StarIterationCallback(make_model(), Doubling(), tmp_path, config)


@pytest.mark.parametrize("name", ["continuous", "batch"])
def test_tokens_of_a_real_run_are_counted(name, make_model, tmp_path):
    """A random model never stops: every completion has all its tokens."""
    config = make_config(sampler=name, few_shot=False, max_new_tokens=4, direct=False)
    task = Odd(train=6, held_out=2)
    star = StarIterationCallback(make_model(), task, tmp_path, config)
    fit(star, 1)
    (line,) = metrics(star)[1:]
    phases = [star.run.samples.load(1, k) for k in ("rationale", "rationalization")]
    assert {s.finish_reason for phase in phases for s in phase} == {"length"}
    assert len(phases[0]) == 6
    assert line["sampled_tokens"] == 6 * 4
    assert line["hinted_tokens"] == len(phases[1]) * 4
    assert line["num_examples"] > 0
    batches = itertools.islice(star.dataset, int(line["steps"]))
    trained = sum(int(x["padding_mask"].numpy().sum()) for x, _, _ in batches)
    assert line["trained_tokens"] == trained > 0
    compared = read_run(tmp_path)
    assert compared.sampled == line["sampled_tokens"] + line["hinted_tokens"]
    assert [tokens for tokens, _ in compared.points] == [0, compared.sampled + trained]
    assert compared.settings["sampling.few_shot"] is False
    assert not any("seed" in name for name in compared.settings)
