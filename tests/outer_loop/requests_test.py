"""Requests of a phase are made while it samples."""

import numpy as np
import pytest

from star_keras.outer_loop.attempts import attempt
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.requests import PhaseRequests, SampleOrder, make_request
from star_keras.outer_loop.sources import KnownAnswers
from star_keras.sampling import Completion, Sampler
from star_keras.testing import Doubling


class CountingPrompts(PromptBuilder):
    """Counts the prompts that were built."""

    count = 0

    def build(self, problem, hint=False):
        self.count += 1
        return super().build(problem, hint)


@pytest.fixture
def prompts():
    return CountingPrompts(Doubling())


@pytest.mark.parametrize("hint", [False, True])
def test_requests_are_those_of_their_places(prompts, hint):
    problems = prompts.task.problems("train")
    places = np.array([0, 2, 3, 4, 11])
    requests = PhaseRequests(
        prompts, SampleOrder(problems, 3), places, hint=hint, iteration=5
    )
    expected = [
        make_request(prompts, problems[i], hint=hint, iteration=5, number=number)
        for i, number in [(0, 0), (0, 2), (1, 0), (1, 1), (3, 2)]
    ]
    assert list(requests) == expected
    assert requests[-1] == expected[-1]
    assert list(requests[1:4:2]) == expected[1:4:2]
    assert [requests.pair(i)[0].id for i in range(5)] == [x.name for x in expected]
    with pytest.raises(IndexError):
        requests[5]


def test_a_phase_builds_prompts_as_the_sampler_reads_them(prompts):
    built = []

    class OneByOne(Sampler):
        def sample(self, requests, *, stop=()):
            for i, request in enumerate(requests):
                built.append(prompts.count)
                completion = Completion(
                    text=request.name, num_tokens=1, finish_reason="stop"
                )
                yield [(i, completion)]

    problems = prompts.task.problems("train")[:4]
    samples = attempt(prompts, problems, OneByOne(), kind="rationale", num_samples=2)
    assert built == [1, 1, 2, 2, 3, 3, 4, 4]  # samples of a problem share its prompt
    assert [(s.problem, s.completion) for s in samples] == [
        (problem.id, problem.id) for problem in problems for _ in range(2)
    ]


def test_known_answers_come_in_batches(prompts):
    task = Doubling(train=2500)
    problems, sizes = task.problems("train"), []
    samples = attempt(
        prompts,
        problems,
        KnownAnswers(prompts, problems),
        kind="direct",
        on_batch=lambda batch, *_: sizes.append(len(batch)),
    )
    assert sizes == [0, 1024, 1024, 452]
    assert [s.problem for s in samples] == [p.id for p in problems]
    assert {s.verdict for s in samples} == {"correct"}
