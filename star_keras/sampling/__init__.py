"""Samplers of rationales: prompts in, completions out."""

from star_keras.sampling.attempt import attempt, build_prompt
from star_keras.sampling.batch_sampler import BatchSampler
from star_keras.sampling.continuous_sampler import ContinuousSampler
from star_keras.sampling.get_sampler import get_sampler
from star_keras.sampling.sampler import Completion, Sampler, SampleRequest

__all__ = [
    "BatchSampler",
    "Completion",
    "ContinuousSampler",
    "SampleRequest",
    "Sampler",
    "attempt",
    "build_prompt",
    "get_sampler",
]
