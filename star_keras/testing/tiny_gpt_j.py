"""A GPT-J so small that it trains in a test."""

import keras
from tokenizers import pre_tokenizers

from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    GPTJCausalLMPreprocessor,
    GPTJTokenizer,
)


def byte_tokenizer() -> GPTJTokenizer:
    """A tokenizer of 258 tokens: one a byte, the end, and `"qz"`, one merge."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *alphabet, "qz"]
    return GPTJTokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)}, merges=["q z"]
    )


def tiny_gpt_j(seed: int = 0, tokenizer: GPTJTokenizer | None = None, **sizes):
    """A compiled GPT-J with random weights, the same for the same seed.

    Args:
        seed: Seed of the weights.
        tokenizer: Defaults to `byte_tokenizer()`.
        **sizes: Arguments of `GPTJBackbone` other than these: 2 layers, 2
            heads, 32 hidden dimensions, 256 positions.
    """
    keras.utils.set_random_seed(seed)
    backbone = GPTJBackbone(
        **{
            "vocabulary_size": 258,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 32,
            "intermediate_dim": 64,
            "rotary_dim": 8,
            "max_sequence_length": 256,
            **sizes,
        }
    )
    preprocessor = GPTJCausalLMPreprocessor(
        tokenizer or byte_tokenizer(), sequence_length=64
    )
    model = GPTJCausalLM(backbone, preprocessor)
    optimizer = keras.optimizers.Adam(1e-3, name="adam")
    model.compile(optimizer=optimizer, weighted_metrics=[])
    return model
