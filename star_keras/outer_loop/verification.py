"""A verifier: a model that ranks the completions of a problem.

It is trained by DPO on right and wrong rationales of the same problem, and scores a
completion by its log-probability after the prompt.

Reference:
    [V-STaR](https://arxiv.org/abs/2402.06457).
"""

import math
from collections.abc import Iterable, Sequence

from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.statistics import mean
from star_keras.sampling.sampler import Sampler
from star_keras.sampling.scorer import Scorer, ScoreRequest
from star_keras.storage.records import GradedSample
from star_keras.tasks.task import Problem, Task
from star_keras.tasks.task_calls import rationale_key
from star_keras.training.examples import response_tokens, tokenize_examples
from star_keras.utils.errors import invalid


def rationale_pairs(
    task: Task, samples: Iterable[GradedSample]
) -> dict[str, list[tuple[str, str]]]:
    """Pairs of a right and a wrong rationale of a problem, each rationale once.

    The first right and the first wrong one are a pair, the second ones the next, and so
    on. Rationales that were cut off, or made with a hint, are in none.

    Args:
        task: Tells equal rationales apart (`Task.rationale_key`).
        samples: The samples, perhaps of several iterations.

    Returns:
        The pairs of each problem that has any, by its id.

    Raises:
        ValueError: if `Task.rationale_key` returns no text.
    """
    found: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    for sample in samples:
        text = sample.completion.rstrip()
        if sample.kind == "rationale" and sample.finish_reason == "stop" and text:
            sides = found.setdefault(sample.problem, ({}, {}))
            side = sides[sample.verdict != "correct"]
            side.setdefault(rationale_key(task, sample.problem, text), text)
    pairs = {
        problem: list(zip(right.values(), wrong.values(), strict=False))
        for problem, (right, wrong) in found.items()
    }
    return {problem: several for problem, several in pairs.items() if several}


def verifier_prompts(task: Task, chat=None) -> PromptBuilder:
    """The prompts that a verifier is trained with: without worked examples.

    Args:
        task: The task.
        chat: See `PromptBuilder`.
    """
    return PromptBuilder(task, few_shot=False, chat=chat)


def verifier_scores(
    verifier,
    prompts: PromptBuilder,
    problems: Sequence[Problem],
    samples: Sequence[GradedSample],
    *,
    batch_size: int = 64,
) -> list[float]:
    """The verifier's score of each sample: its log-probability, end token included.

    Args:
        verifier: A `keras_hub.models.CausalLM` with a preprocessor.
        prompts: Makes the prompts, see `verifier_prompts`.
        problems: The problems of the samples.
        samples: The samples.
        batch_size: Completions scored together.

    Raises:
        ValueError: if a completion is longer than the verifier's longest sequence. A
            longer prompt loses its beginning.
    """
    by_id = {problem.id: problem for problem in problems}
    examples = tokenize_examples(
        verifier.preprocessor,
        [
            (prompts.build(by_id[s.problem], False), s.completion.rstrip(), 1.0)
            for s in samples
        ],
        **response_tokens(verifier.preprocessor.tokenizer, prompts.chat),
    )
    requests = [
        ScoreRequest(
            context=example.prompt_ids.tolist(),
            continuation=example.response_ids.tolist(),
            name=sample.problem,
        )
        for example, sample in zip(examples, samples, strict=True)
    ]
    scores = [0.0] * len(samples)
    for batch in Scorer(verifier, batch_size=batch_size).score(requests):
        for index, score in batch:
            scores[index] = score.log_likelihood
    return scores


def check_verifier(verifier, sampler: Sampler):
    """Check that a verifier can score the longest completion of a sampler.

    Completions of a sampler without `max_new_tokens` are checked when they are scored.

    Args:
        verifier: A `keras_hub.models.CausalLM` with a preprocessor.
        sampler: Samples the completions.

    Raises:
        ValueError: if it cannot.
    """
    longest = getattr(sampler, "max_new_tokens", None)
    most = Scorer(verifier).max_length
    if longest is not None and longest + 1 > most:  # an end token follows
        rule = f"at most {most - 1}: the verifier's longest sequence has {most} tokens"
        raise invalid("max_new_tokens", rule, longest, "Sample less, or train another.")


def best_of_k(is_correct: Sequence[bool], scores: Sequence[float], k: int) -> float:
    """Unbiased estimate of the chance that the best-scored of `k` samples is correct.

    The sample of rank i, from 0, is the best of `k` of n samples in
    `comb(n - 1 - i, k - 1)` of the `comb(n, k)` choices.

    Args:
        is_correct: Whether each sample is correct; at least `k` samples.
        scores: The score of each sample. Of equal scores the first counts as best.
        k: Number of samples to choose from.

    Example:
    ```python
    best_of_k([True, False], [-1.0, -2.0], 2)  # 1.0
    best_of_k([True, False], [-1.0, -2.0], 1)  # 0.5
    ```
    """
    count = len(scores)
    ranked = sorted(range(count), key=lambda i: -scores[i])
    chosen = sum(
        math.comb(count - 1 - rank, k - 1)
        for rank, index in enumerate(ranked)
        if is_correct[index]
    )
    return chosen / math.comb(count, k)


def verified_metrics(
    samples: Sequence[GradedSample], scores: Sequence[float]
) -> dict[str, float]:
    """`best@1` to `best@k`: the mean of `best_of_k` over the problems.

    Args:
        samples: The samples, the same number k for each problem.
        scores: Their scores.
    """
    groups: dict[str, tuple[list[bool], list[float]]] = {}
    for sample, score in zip(samples, scores, strict=True):
        is_correct, own = groups.setdefault(sample.problem, ([], []))
        is_correct.append(sample.verdict == "correct")
        own.append(score)
    most = min(len(own) for _, own in groups.values())
    return {
        f"best@{k}": mean([best_of_k(*group, k) for group in groups.values()])
        for k in range(1, most + 1)
    }
