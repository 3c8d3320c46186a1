"""The outer loop over a mesh: checkpoints, resumption, and another mesh then."""

import pytest

from tests.conftest import run_on_eight_devices

PROGRAM = """
import star_keras
import json
import os
import signal
import sys
import tempfile
import jax
import keras
import numpy as np
from tokenizers import pre_tokenizers
from star_keras import tasks
from star_keras.callbacks import StarIterationCallback, SteadySteps
from star_keras.distribution import model_parallel
from star_keras.models import (
    GPTJBackbone, GPTJCausalLM, GPTJCausalLMPreprocessor, GPTJTokenizer)
from star_keras.sampling import get_sampler

directory = tempfile.mkdtemp()
tokens = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
tokens += [f"<{i}>" for i in range(264 - len(tokens) - 1)] + ["qz"]

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
    keras.utils.set_random_seed(0)
    model = GPTJCausalLM(
        GPTJBackbone(
            vocabulary_size=264, num_layers=1, num_heads=8, hidden_dim=32,
            intermediate_dim=64, rotary_dim=4, max_sequence_length=128),
        GPTJCausalLMPreprocessor(
            GPTJTokenizer(
                vocabulary={t: i for i, t in enumerate(tokens)}, merges=["q z"]),
            sequence_length=64))
    model.compile(keras.optimizers.Adam(1e-2, name="adam"))
    star = StarIterationCallback(
        model,
        task=tasks.get(
            "arithmetic", digits=[1], extrapolation_digits=(), eval_problems=8),
        sampler=get_sampler(model, max_new_tokens=8, batch_size=8),
        run_dir=f"{directory}/{name}", steps=SteadySteps(6, add=0), batch_size=8,
        row_length=64, few_shot=False, direct=True, checkpoint_steps=2)
    try:
        model.fit(
            star.dataset, epochs=2, initial_epoch=star.initial_epoch,
            callbacks=[star, TerminateAtStep(step)], verbose=0, shuffle=False)
    except SystemExit as error:
        return {"code": error.code}
    samples = [
        [(r.problem, r.completion) for r in star._run.samples.load(i)
         if r.prompt_kind == "evaluation"]
        for i in range(3)]
    return {
        "weights": [np.asarray(v.value) for v in model.weights],
        "losses": [line["loss"] for line in star.metrics[1:]],
        "samples": samples,
        "figures": [sorted(line) for line in star.metrics],
    }

whole = run("whole", None)
found = {"devices": jax.device_count(), "moved": max(
    abs(a - b) for a, b in zip(whole["losses"], whole["losses"][1:]))}
for first, then in MESHES:
    name = f"{first} {then}"
    codes = [run(name, first, 4)["code"], run(name, first, 5)["code"]]
    cut = run(name, then)
    found[name] = {
        "codes": codes,
        "weights": max(
            float(np.abs(a - b).max())
            for a, b in zip(cut["weights"], whole["weights"], strict=True)),
        "losses": max(
            abs(a - b) for a, b in zip(cut["losses"], whole["losses"], strict=True)),
        "same": cut["samples"] == whole["samples"]
        and cut["figures"] == whole["figures"],
    }
json.dump(found, sys.stdout)
"""
MESHES = [
    ("batch:2,model:4", "batch:2,model:4"),
    ("batch:8", "batch:8"),
    ("model:8", "model:8"),
    ("model:8", "batch:4,model:2"),
]


@pytest.fixture(scope="module")
def found():
    return run_on_eight_devices(PROGRAM.replace("MESHES", repr(MESHES)))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), MESHES)
def test_run_that_is_cut_over_a_mesh_ends_like_one_device(found, first, then):
    """The second time it is cut in the second iteration."""
    cut = found[f"{first} {then}"]
    assert cut["codes"] == [75, 75]
    assert cut["losses"] < 1e-5
    assert cut["weights"] < 1e-4
    assert cut["same"]
