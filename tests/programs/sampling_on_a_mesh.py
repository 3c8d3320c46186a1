"""Samples and scores of one model, whole and then split over eight devices."""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import sys

import jax
import keras
import numpy as np

from star_keras import distribution, testing
from star_keras.models import forward
from star_keras.sampling import ContinuousSampler, SampleRequest, Scorer, ScoreRequest
from star_keras.sampling.layout import MeshLayout
from star_keras.sampling.ring_cache import RingCache

PREFIX = "Q: one?\nA: 1.\n\n"
REQUESTS = [
    SampleRequest(prompt=PREFIX + "Q" * i, name=str(i), seed=(i,), prefix=PREFIX)
    for i in range(1, 26)
]
SCORE_REQUESTS = [
    ScoreRequest(context=[9] * i, continuation=[40, 41], name=str(i))
    for i in range(1, 6)
]


def make_model():
    """A model with LoRA, whose adapters are replicated and its kernels split."""
    model = testing.tiny_gpt_j(
        vocabulary_size=264, num_layers=1, num_heads=4, rotary_dim=4
    )
    model.backbone.enable_lora(2)
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if "lora" in variable.path:
            variable.assign(0.3 * generator.standard_normal(variable.shape))
    return model


def results(model):
    """Greedy texts, sampled texts, log-likelihoods; and the last sampler."""
    texts = []
    for temperature in (0.0, 1.0):
        sampler = ContinuousSampler(
            model, max_new_tokens=20, batch_size=8, temperature=temperature
        )
        done = {}
        for batch in sampler.sample(REQUESTS):
            done.update(batch)
        texts.append([done[i].text for i in range(len(REQUESTS))])
    scores = {}
    for batch in Scorer(model, batch_size=4).score(SCORE_REQUESTS):
        scores.update(batch)
    log_likelihoods = [scores[i].log_likelihood for i in range(len(SCORE_REQUESTS))]
    return {"texts": texts, "log_likelihoods": log_likelihoods}, sampler


# Families that name their heads in other ways, with as many as there are devices, and
# with fewer heads of keys and values.
HEADS = {
    "gpt_neo_x": {"num_heads": 4},
    "pythia": {"num_heads": 4},
    "smollm3": {"num_key_value_heads": 4},
    "smollm3 of 2": {"num_key_value_heads": 2},
    "gemma3": {"num_key_value_heads": 4},
    "general_llama": {"num_key_value_heads": 4},
    "general_llama of 2": {"num_key_value_heads": 2},
}


def cache_shapes(ring):
    """Shapes of a cache of 8 slots, and of the part on a device."""
    cache = ring.resize(None, np.int32(0), 32, 8)
    return [cache[0][0].shape, cache[0][0].sharding.shard_shape(cache[0][0].shape)]


def heads():
    """The layout of the caches of other families."""
    layout = MeshLayout.current()
    models = {
        name: testing.tiny_causal_lm(name.split()[0], vocabulary_size=264, **sizes)
        for name, sizes in HEADS.items()
    }
    return {k: cache_shapes(RingCache(model, layout)) for k, model in models.items()}


def prefill_flops(sampler):
    """FLOPs of a device for a group of prompts of 64 tokens."""
    lowered = sampler.lower(prefix_length=0, prompt_length=64, cache_length=96)
    rows = sampler.group_size
    return lowered["prefill"].compile().cost_analysis()["flops"] / rows


def error(make, *args, **kwargs):
    try:
        make(*args, **kwargs)
    except ValueError as error:
        return str(error)
    return ""


def main():
    whole, sampler = results(make_model())
    whole_flops = prefill_flops(sampler)
    keras.distribution.set_distribution(distribution.model_parallel("batch:2,model:4"))
    split, sampler = results(make_model())
    steps = sampler.steps
    found = {
        "devices": jax.device_count(),
        "whole": whole,
        "split": split,
        "prefill_flops": [whole_flops, prefill_flops(sampler)],
        "cache": {"gpt_j": cache_shapes(steps.ring), **heads()},
        "compilations": {
            step.__name__.strip("_"): step._cache_size()
            for step in (
                steps.prefill,
                steps.ring.insert,
                steps.decode,
                steps.ring.compact,
            )
        },
        "sampler_error": error(
            ContinuousSampler, sampler.model, max_new_tokens=4, batch_size=9
        ),
        "scorer_error": error(Scorer, sampler.model, batch_size=3),
    }
    # Two heads side by side in the caches, as on a TPU.
    forward.heads_in_a_row = lambda *_: 2
    keras.distribution.set_distribution(distribution.model_parallel("batch:4,model:2"))
    found["in_rows"], sampler = results(make_model())
    found["cache"]["gpt_j in rows"] = cache_shapes(sampler.steps.ring)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
