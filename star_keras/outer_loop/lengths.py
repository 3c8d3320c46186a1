"""Texts that are too long for the model or a row, found before anything is sampled."""

import heapq

from star_keras.outer_loop.iteration import OuterLoop
from star_keras.outer_loop.requests import make_request
from star_keras.outer_loop.sources import KnownAnswers
from star_keras.training.examples import response_tokens, tokenize_examples
from star_keras.utils.errors import invalid

# Tokenizing all texts is slow: only this many of the longest by characters.
_LONGEST = 16


def check_lengths(loop: OuterLoop, preprocessor):
    """Check the longest prompts of each kind, and the shortest possible examples.

    Args:
        loop: The outer loop.
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.

    Raises:
        ValueError: if a prompt leaves no room for a completion, or does not fit into
            a row together with a response; names its problem.
    """
    problems, config = loop.problems, loop.config
    is_known = loop.source.kind == "direct"
    _check_rows(
        problems["train"],
        loop.training_prompts,
        preprocessor,
        config.training.sequence_length,
        loop.source.sampler if is_known else None,
    )
    _check_prompts(loop.prompts, problems["train"], loop.source.sampler)
    if config.sampling.rationalize and not is_known:
        _check_prompts(loop.prompts, problems["train"], loop.source.sampler, hint=True)
    if "eval" in problems:
        _check_prompts(loop.prompts, problems["eval"], loop.eval_sampler)


def _check_prompts(prompts, problems, sampler, hint=False):
    requests = (make_request(prompts, problem, hint=hint) for problem in problems)
    longest = heapq.nlargest(_LONGEST, requests, key=lambda x: len(x.prompt))
    sampler.check(longest)


def _check_rows(
    problems, prompts, preprocessor, sequence_length, known: KnownAnswers | None
):
    """Training examples with their known response, or with an empty one."""
    texts = (
        (
            prompts.build(problem, False),
            "" if known is None else known.response(problem.id),
            problem.id,
        )
        for problem in problems
    )
    texts = heapq.nlargest(_LONGEST, texts, key=lambda x: len(x[0]) + len(x[1]))
    examples = tokenize_examples(
        preprocessor,
        [(*text[:2], 1.0) for text in texts],
        **response_tokens(preprocessor.tokenizer, prompts.chat),
    )
    for example, (_, _, problem) in zip(examples, texts, strict=True):
        if len(example) > sequence_length:
            even = "" if known else ", even with an empty rationale"
            raise invalid(
                "sequence_length",
                f"at least {len(example)}: the training example of problem "
                f"{problem!r} has {len(example)} tokens{even}",
                sequence_length,
                "Use longer rows, or leave the problem out.",
            )
