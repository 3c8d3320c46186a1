"""Quotas against a plain implementation: one sample after the other."""

import math
import random

import pytest

from star_keras.config import SamplingConfig, SelectionConfig
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.quota_attempts import QuotaAttempts
from star_keras.outer_loop.quotas import make_quota
from star_keras.outer_loop.selection import select
from star_keras.sampling import Completion, Sampler
from star_keras.storage.sample_store import SampleStore
from star_keras.testing import Doubling, ScriptedSampler

TASK = Doubling(train=9)
PROBLEMS = TASK.problems("train")
PROMPTS = PromptBuilder(TASK)


def text(problem, number):
    """What the model says: right with another probability for each problem."""
    n = int(problem.removeprefix("double-"))
    draw = random.Random(f"{problem} {number}")
    right = draw.random() < n / 8  # never for 0, always for 8
    return f" Way {draw.randrange(4)}. The answer is {2 * n if right else 1}."


def script(request):
    return text(request.name, request.seed[2])


class Streaming(Sampler):
    """Takes requests at any time, and completes them in an order of its own.

    Args:
        seed: Seed of that order.
        slots: Requests in flight.
        last: Ends by a `KeyboardInterrupt` after so many completions.
    """

    def __init__(self, seed, slots=4, last=math.inf):
        self.draw, self.slots, self.last = random.Random(seed), slots, last
        self.seeds = []

    def sample(self, requests, *, stop=()):
        raise NotImplementedError

    def sample_stream(self, prompts, wanted, *, stop=()):
        waiting, count = [], 0
        while True:
            for index, seed in wanted(self.slots - len(waiting)):
                waiting.append((count, prompts[index].name, seed))
                self.seeds.append(seed)
                count += 1
            if not waiting:
                return
            chosen = waiting.pop(self.draw.randrange(len(waiting)))
            number, name, seed = chosen
            completion = Completion(
                text=text(name, seed[2]), num_tokens=1, finish_reason="stop"
            )
            yield [(number, completion)]
            self.last -= 1
            if self.last <= 0:
                raise KeyboardInterrupt


def one_by_one(first, most, kept, by_difficulty):
    """The samples that each problem should get, without any stream."""
    order = []
    for problem in PROBLEMS:
        right, numbers = [], []
        target = math.inf
        while len(numbers) < first or len(set(right)) < target:
            if len(numbers) == most:
                break
            numbers.append(len(numbers))
            completion = text(problem.id, numbers[-1])
            if completion.endswith(f"is {problem.answer}."):
                right.append(completion)
            if len(numbers) == first:
                share = (first - len(right)) / first
                target = max(1, math.ceil(kept * share)) if by_difficulty else kept
        order += [(problem.id, number) for number in numbers]
    return order


def quota_of(first=1, most=12, kept=3, by_difficulty=False):
    config = SamplingConfig(
        samples_per_problem=first,
        max_samples_per_problem=most,
        kept_per_problem=kept,
        quota="difficulty" if by_difficulty else "uniform",
    )
    return make_quota(TASK, config, SelectionConfig())


def attempt(sampler, quota, store=None, kind="rationale"):
    attempts = QuotaAttempts(
        PROMPTS, PROBLEMS, sampler, quota, kind=kind, iteration=1, store=store
    )
    attempts.sample(PROBLEMS)
    return list(attempts.finish(PROBLEMS))


RULES = [
    {"first": 1, "most": 12, "kept": 3, "by_difficulty": False},
    {"first": 5, "most": 12, "kept": 2, "by_difficulty": False},
    {"first": 4, "most": 9, "kept": 4, "by_difficulty": True},
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "sampler", [Streaming(0), Streaming(1, slots=50), ScriptedSampler(script)]
)
def test_samples_are_those_of_one_after_the_other_whatever_the_sampler(rule, sampler):
    samples = attempt(sampler, quota_of(**rule))
    assert [(s.problem, s.sample) for s in samples] == one_by_one(**rule)
    assert [s.completion for s in samples] == [
        text(s.problem, s.sample) for s in samples
    ]


def test_no_sample_is_made_in_vain():
    sampler = Streaming(2, slots=50)
    samples = attempt(sampler, quota_of())
    assert len(sampler.seeds) == len(samples) == len(set(sampler.seeds))


@pytest.mark.parametrize("rule", RULES)
def test_an_interrupted_phase_ends_with_the_same_file(rule, tmp_path):
    quota = quota_of(**rule)
    whole = SampleStore(tmp_path / "whole")
    attempt(Streaming(0), quota, whole)
    cut = SampleStore(tmp_path / "cut")
    for seed in range(3):
        with pytest.raises(KeyboardInterrupt):
            attempt(Streaming(seed, slots=7, last=9), quota, cut)
    attempt(Streaming(4), quota, cut)
    paths = [store.path(1, "rationale") for store in (whole, cut)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not cut.journal_path(1, "rationale").exists()
    # Read again, nothing is sampled.
    again = Streaming(5)
    assert len(attempt(again, quota, cut)) == len(one_by_one(**rule))
    assert again.seeds == []


@pytest.mark.parametrize("rule", RULES)
def test_no_more_than_the_quota_is_trained_on_and_nothing_twice(rule):
    quota = quota_of(**rule)
    samples = attempt(Streaming(0), quota)
    selections = select(TASK, [samples, []], SelectionConfig(), 0, quota)
    kept = {}
    for sample, selection in zip(samples, selections, strict=True):
        if selection.weight:
            kept.setdefault(sample.problem, []).append(sample.completion)
    for problem in PROBLEMS:
        texts = kept.get(problem.id, [])
        assert len(texts) == len(set(texts)) <= rule["kept"]
    if rule["by_difficulty"]:
        # The share of failures among the first four is 0 and 1.
        assert len(kept["double-8"]) == 1
        assert "double-0" not in kept


def test_samples_beyond_the_quota_are_refused(tmp_path):
    store = SampleStore(tmp_path)
    store.append(1, "rationale", attempt(Streaming(0), quota_of(kept=4)))
    with pytest.raises(ValueError, match="does not hold the samples of this run"):
        attempt(Streaming(0), quota_of(kept=1), store)


def test_a_sampler_that_leaves_out_a_request_or_repeats_one_is_named():
    class LeavesOut(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            for batch in super().sample(requests, stop=stop):
                yield batch[1:]

    class Repeats(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            for batch in super().sample(requests, stop=stop):
                yield [*batch, batch[0]]

    class Pairs(ScriptedSampler):
        def sample(self, requests, *, stop=()):
            for batch in super().sample(requests, stop=stop):
                yield from batch

    with pytest.raises(ValueError, match="LeavesOut.*left out.*double-0"):
        attempt(LeavesOut(script), quota_of())
    with pytest.raises(ValueError, match="Repeats.*Expected each request once"):
        attempt(Repeats(script), quota_of())
    with pytest.raises(ValueError, match=r"Pairs.*yielded \(0,.*lists of pairs"):
        attempt(Pairs(script), quota_of())
