"""Logits and shards of models, read from Hugging Face directories over a mesh."""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import sys

import jax
import keras

from star_keras.distribution import model_parallel
from tests.models.hugging_face.cases import difference, loaded


def results(name):
    model = loaded(name)
    prefix = model.backbone.name + "/"
    return {
        "difference": float(difference(model, name)),
        "shards": {
            "/".join(v.path.split("/")[-3:]).removeprefix(prefix): list(
                v.value.sharding.shard_shape(v.shape)
            )
            for v in model.weights
        },
    }


keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
found = {name: results(name) for name in ("llama_untied", "mixtral")}
json.dump({"devices": jax.device_count(), **found}, sys.stdout)
