"""Small parts to test with: a task, a sampler that follows a script, a tiny GPT-J."""

from star_keras.testing.doubling import Doubling
from star_keras.testing.scripted_sampler import ScriptedSampler
from star_keras.testing.tiny_gpt_j import byte_tokenizer, tiny_gpt_j

__all__ = ["Doubling", "ScriptedSampler", "byte_tokenizer", "tiny_gpt_j"]
