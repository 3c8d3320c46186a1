"""Small parts to test with: a task, a scripted sampler, a tiny model of each family."""

from star_keras.testing.doubling import Doubling
from star_keras.testing.scripted_sampler import ScriptedSampler
from star_keras.testing.tiny_gpt_j import byte_tokenizer, tiny_gpt_j
from star_keras.testing.tiny_models import FAMILIES, tiny_causal_lm

__all__ = [
    "FAMILIES",
    "Doubling",
    "ScriptedSampler",
    "byte_tokenizer",
    "tiny_causal_lm",
    "tiny_gpt_j",
]
