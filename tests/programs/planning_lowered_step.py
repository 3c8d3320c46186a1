"""The lowered training step and the step of `fit`, on one batch over a mesh."""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import json
import sys

import jax
import keras
import numpy as np

from star_keras import distribution, planning
from star_keras.models import GPTJBackbone, GPTJCausalLM

keras.distribution.set_distribution(distribution.model_parallel("batch:2,model:4"))


def make():
    keras.utils.set_random_seed(0)
    backbone = GPTJBackbone(
        vocabulary_size=64,
        num_layers=1,
        num_heads=4,
        hidden_dim=32,
        intermediate_dim=64,
        rotary_dim=4,
    )
    model = GPTJCausalLM(backbone, compile=False)
    model.compile(optimizer=keras.optimizers.Adam(1e-2, name="adam"))
    model.optimizer.build(model.trainable_variables)
    return model


rng = np.random.default_rng(0)
tokens = rng.integers(0, 64, (4, 8), "int32")
x = {
    "token_ids": tokens,
    "padding_mask": np.ones_like(tokens),
    "segment_ids": np.ones_like(tokens),
    "positions": np.arange(8, dtype="int32")[None].repeat(4, 0),
}
labels = rng.integers(0, 64, (4, 8), "int32")
weights = rng.integers(0, 2, (4, 8)).astype("float32")

model = make()
step = planning.lower_train_step(model, 4, 8).compile()
state = tuple(
    [v.value for v in variables]
    for variables in (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
)
rows = keras.distribution.distribution().get_data_layout((4, 8)).backend_layout
logs, state = step(state, jax.device_put((x, labels, weights), rows))

model = make()
history = model.fit(
    x, labels, sample_weight=weights, batch_size=4, shuffle=False, verbose=0
).history
trained = zip(
    state[0] + state[2],
    model.trainable_variables + model.optimizer.variables,
    strict=True,
)
differences, same_layouts = [], []
for found, variable in trained:
    value = variable.value
    differences.append(float(np.abs(np.asarray(found) - np.asarray(value)).max()))
    same_layouts.append(found.sharding.is_equivalent_to(value.sharding, found.ndim))
json.dump(
    {
        "devices": jax.device_count(),
        "losses": [float(logs["loss"]), history["loss"][0]],
        "difference": max(differences),
        "same_layouts": all(same_layouts),
    },
    sys.stdout,
)
