"""Checkpoints and host copies of a model, saved on one mesh, restored on another."""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import sys
import tempfile

import jax
import keras
import numpy as np

from star_keras.distribution import model_parallel
from star_keras.distribution.checkpoints import Checkpoints
from star_keras.distribution.processes import HostCopy
from star_keras.models import GPTJBackbone


def make(mesh, seed):
    keras.distribution.set_distribution(model_parallel(mesh))
    keras.utils.set_random_seed(seed)
    return GPTJBackbone(
        vocabulary_size=64,
        num_layers=1,
        num_heads=8,
        hidden_dim=32,
        intermediate_dim=64,
        rotary_dim=4,
    )


def same(one, other):
    return all(
        np.array_equal(np.asarray(v.value), np.asarray(w.value))
        for v, w in zip(one.weights, other.weights, strict=True)
    )


def shards(model):
    return [str(v.value.sharding.spec) for v in model.weights]


checkpoints = Checkpoints(tempfile.mkdtemp())
saved = make("batch:2,model:4", 0)
checkpoints.save("a", saved.weights)
model = make("batch:1,model:8", 1)
layout = shards(model)
found = {"devices": jax.device_count(), "before": same(saved, model)}
checkpoints.restore("a", model.weights)
found["restored"] = same(saved, model) and shards(model) == layout
copies = [HostCopy(v.value) for v in model.weights]
for variable in model.weights:
    variable.assign(variable * 0)
found["zeros"] = same(saved, model)
for variable, copy in zip(model.weights, copies, strict=True):
    variable.assign(copy.to_devices())
found["copied"] = same(saved, model) and shards(model) == layout
json.dump(found, sys.stdout)
