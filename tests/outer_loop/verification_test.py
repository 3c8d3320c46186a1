import itertools
import random

import jax
import numpy as np
import pytest

from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.verification import (
    best_of_k,
    check_verifier,
    rationale_pairs,
    verified_metrics,
    verifier_scores,
)
from star_keras.sampling import get_sampler
from star_keras.storage.records import GradedSample
from star_keras.testing import Doubling, ScriptedSampler, tiny_gpt_j

TASK = Doubling(train=3)


def sample(completion, verdict="correct", problem="double-0", **fields):
    return GradedSample(
        **{
            "iteration": 1,
            "problem": problem,
            "problem_class": "",
            "sample": 0,
            "kind": "rationale",
            "completion": completion,
            "num_tokens": 1,
            "finish_reason": "stop",
            "answer": None,
            "verdict": verdict,
            **fields,
        }
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_best_of_k_is_the_mean_over_all_choices(k):
    draw = random.Random(k)
    scores = [draw.random() for _ in range(6)]
    correct = [draw.random() < 0.5 for _ in range(6)]
    choices = list(itertools.combinations(range(6), k))
    expected = np.mean([correct[max(c, key=scores.__getitem__)] for c in choices])
    np.testing.assert_allclose(best_of_k(correct, scores, k), expected)


def test_metrics_are_means_over_the_problems():
    samples = [
        sample(" a"),
        sample(" b", "incorrect"),
        sample(" a", problem="double-1"),
        sample(" b", "incorrect", problem="double-1"),
    ]
    found = verified_metrics(samples, [-1.0, -2.0, -2.0, -1.0])
    assert found == {"best@1": 0.5, "best@2": 0.5}


def test_pairs_are_of_different_rationales_that_have_ended_without_a_hint():
    samples = [
        sample(" a"),
        sample(" a ", iteration=2),
        sample(" b", "incorrect"),
        sample(" c", "incorrect", finish_reason="length"),
        sample(" d", "incorrect", kind="rationalization"),
        sample(" e", "unparsed", iteration=2),
        sample(" f", iteration=2),
        sample(" g", iteration=3),
        sample(" h", problem="double-1"),
    ]
    assert rationale_pairs(TASK, samples) == {"double-0": [(" a", " b"), (" f", " e")]}


def test_scores_are_the_log_probabilities_of_full_logits():
    model = tiny_gpt_j(num_layers=1, hidden_dim=16)
    prompts = PromptBuilder(TASK, few_shot=False)
    problems = TASK.problems("train")
    samples = [sample(f" Twice. {p.answer}\n", problem=p.id) for p in problems[::-1]]
    found = verifier_scores(model, prompts, problems, samples, batch_size=2)
    tokenizer = model.preprocessor.tokenizer
    expected = []
    for problem in problems[::-1]:
        prompt = tokenizer(prompts.build(problem))
        end = tokenizer.end_token_id
        response = [*tokenizer(f" Twice. {problem.answer}"), end]
        ids = np.array([[*prompt, *response]])
        inputs = {"token_ids": ids[:, :-1], "padding_mask": np.ones_like(ids[:, :-1])}
        logits = jax.nn.log_softmax(model(inputs)[0])
        chosen = logits[np.arange(ids.shape[1] - 1), ids[0, 1:]]
        expected.append(float(chosen[-len(response) :].sum()))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_completions_too_long_for_a_verifier_are_named_before_they_are_sampled():
    small = tiny_gpt_j(num_layers=1, max_sequence_length=32)
    model = tiny_gpt_j(num_layers=1, max_sequence_length=64)
    check_verifier(small, get_sampler(model, max_new_tokens=31))
    check_verifier(small, ScriptedSampler(lambda request: ""))  # without a limit
    with pytest.raises(ValueError, match="`max_new_tokens`. Expected at most 31.* 32 "):
        check_verifier(small, get_sampler(model, max_new_tokens=32))
