"""Logits and shards of a Llama, read from a Hugging Face directory over a mesh."""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import sys

import jax
import keras

from star_keras.distribution import model_parallel
from tests.models.hugging_face.cases import difference, loaded

keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
model = loaded("llama_untied")
shards = {
    "/".join(v.path.split("/")[-3:]).removeprefix(model.backbone.name + "/"): list(
        v.value.sharding.shard_shape(v.shape)
    )
    for v in model.weights
}
json.dump(
    {
        "devices": jax.device_count(),
        "difference": float(difference(model, "llama_untied")),
        "shards": shards,
    },
    sys.stdout,
)
