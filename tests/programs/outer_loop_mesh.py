"""Runs over meshes that are cut twice, beside a whole run on one device.

Its argument is a JSON list of pairs of meshes: of the first two parts, and of
the rest. Prints how the results differ, as JSON.
"""

import json
import os
import signal
import sys
import tempfile

import jax
import keras
import numpy as np

from star_keras import tasks
from star_keras.callbacks import StarIterationCallback
from star_keras.config import RunConfig, SamplingConfig, StarConfig, TrainingConfig
from star_keras.distribution import model_parallel
from star_keras.outer_loop import plots
from star_keras.testing import tiny_gpt_j

# They take a third of such a run.
plots.save_plots = lambda metrics, directory: None
DIRECTORY = tempfile.mkdtemp()
CONFIG = StarConfig(
    sampling=SamplingConfig(
        few_shot=False, direct=True, max_new_tokens=8, sample_batch_size=8
    ),
    training=TrainingConfig(
        schedule="steady",
        start_steps=6,
        add_steps=0,
        batch_size=8,
        sequence_length=64,
    ),
    run=RunConfig(checkpoint_steps=2),
)


class TerminateAtStep(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_begin(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def run(name, mesh, step=0):
    if mesh:
        keras.distribution.set_distribution(model_parallel(mesh))
    model = tiny_gpt_j(
        vocabulary_size=264,
        num_layers=1,
        num_heads=8,
        rotary_dim=4,
        max_sequence_length=128,
    )
    model.compile(keras.optimizers.Adam(1e-2, name="adam"))
    task = tasks.get("arithmetic", digits=[1], extrapolation_digits=(), eval_problems=8)
    star = StarIterationCallback(model, task, f"{DIRECTORY}/{name}", CONFIG)
    try:
        star.fit(2, [TerminateAtStep(step)], verbose=0)
    except SystemExit as error:
        return {"code": error.code}
    samples = [
        [(s.problem, s.completion) for s in star.run.samples.load(i, "evaluation")]
        for i in range(3)
    ]
    return {
        "weights": [np.asarray(v.value) for v in model.weights],
        "losses": [line["loss"] for line in star.metrics[1:]],
        "samples": samples,
        "metrics": [sorted(line) for line in star.metrics],
    }


whole = run("whole", None)
moved = max(abs(a - b) for a, b in zip(whole["losses"], whole["losses"][1:]))  # noqa: B905
found = {"devices": jax.device_count(), "moved": moved}
for first, then in json.loads(sys.argv[1]):
    name = f"{first} {then}"
    codes = [run(name, first, 4)["code"], run(name, first, 5)["code"]]
    cut = run(name, then)
    weights = zip(cut["weights"], whole["weights"], strict=True)
    losses = zip(cut["losses"], whole["losses"], strict=True)
    found[name] = {
        "codes": codes,
        "weights": max(float(np.abs(a - b).max()) for a, b in weights),
        "losses": max(abs(a - b) for a, b in losses),
        "same": cut["samples"] == whole["samples"]
        and cut["metrics"] == whole["metrics"],
    }
json.dump(found, sys.stdout)
