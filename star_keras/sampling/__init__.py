"""Samplers of a causal LM: prompts in, completions out; and a scorer."""

from star_keras.sampling.batch_sampler import BatchSampler
from star_keras.sampling.continuous_engine import ContinuousEngine
from star_keras.sampling.continuous_sampler import ContinuousSampler
from star_keras.sampling.get_sampler import configured_sampler, get_sampler
from star_keras.sampling.request_settings import RequestSettings
from star_keras.sampling.sampler import Completion, Sampler, SampleRequest
from star_keras.sampling.scorer import Score, Scorer, ScoreRequest
from star_keras.sampling.token_scorer import TokenScorer

__all__ = [
    "BatchSampler",
    "Completion",
    "ContinuousEngine",
    "ContinuousSampler",
    "RequestSettings",
    "SampleRequest",
    "Sampler",
    "Score",
    "ScoreRequest",
    "Scorer",
    "TokenScorer",
    "configured_sampler",
    "get_sampler",
]
