"""Models with completions of known length, and questions for it.

The weights are random, but blocks add little to the residual stream, and the
head answers token `k` with token `k - 1`. Token 0 ends a completion. So a
completion counts down from the last token of its question:

    question     ... 33 71 18
    completion   17 16 15 ... 2 1 0

The amount of computation does not depend on the weights.
"""

import dataclasses

import numpy as np

from benchmarks.models import LlamaSize, Size
from benchmarks.peers import LONGEST_COMPLETION, LONGEST_QUESTION

# Letters and digits alone: white space at the end of the prefix would become a
# part of the questions.
_TOKENS = (16, 95)
# Kernels of the layers that add to the residual stream.
_BLOCK_OUTPUTS = ("attention_output/kernel", "feedforward_output_dense/kernel")


def make_problems(prefix_length: int, count: int) -> tuple[list[int], list[list[int]]]:
    """Token ids of a prefix, and of `count` questions of 24 to 48 tokens."""
    rng = np.random.default_rng(0)
    prefix = rng.integers(*_TOKENS, prefix_length).tolist()
    questions = [
        rng.integers(*_TOKENS, rng.integers(24, LONGEST_QUESTION + 1)).tolist()
        for _ in range(count)
    ]
    return prefix, questions


def expected_completion(question: list[int]) -> list[int]:
    """Token ids of the completion, the end token included."""
    return list(range(question[-1] - 1, -1, -1))


def needed_flops(size: Size, prefix: list[int], questions: list[list[int]]) -> float:
    """FLOPs of the prefix, the questions and the completions, each once."""
    tokens, attended = len(prefix), len(prefix) ** 2 / 2
    sampled = 0
    for question in questions:
        new = len(question) + question[-1]
        tokens += new
        attended += new * len(prefix) + new**2 / 2
        sampled += question[-1]
    return size.forward_flops(tokens, attended, sampled)


def make_model(size: Size, prefix_length: int):
    """A stock model that counts down, with a tokenizer of bytes.

    Its head is not tied to the embeddings, whatever the size says: with a tied head
    a token would answer itself.
    """
    import star_keras  # noqa: F401  isort: skip  (selects the backend)
    import keras

    from star_keras.testing import byte_tokenizer

    keras.utils.set_random_seed(0)
    preprocessor = size.make_preprocessor(
        byte_tokenizer(), prefix_length + LONGEST_QUESTION + LONGEST_COMPLETION
    )
    if isinstance(size, LlamaSize):
        size = dataclasses.replace(size, tied=False)
    model = size.make_model(preprocessor)
    for variable in model.backbone.trainable_variables:
        if variable.path.endswith(_BLOCK_OUTPUTS):
            variable.assign(0.01 * variable)
    embedding = model.backbone.token_embedding
    head = getattr(model, "lm_head", None)
    head_kernel = head.kernel if head else embedding.reverse_embeddings
    embeddings = np.asarray(embedding.embeddings)
    kernel = 0.1 * np.asarray(head_kernel)
    kernel[:, :LONGEST_COMPLETION] = embeddings[1 : LONGEST_COMPLETION + 1].T
    head_kernel.assign(kernel)
    return model
