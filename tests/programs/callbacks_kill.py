"""Forks a run a line of its input: `run_dir <tab> coordinator <tab> process`.

Imports once, since imports take longer than most of the runs live.
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"

import experiments  # noqa: F401  isort: skip  (freed memory is kept)

import hashlib

import keras

from star_keras import tasks
from star_keras.callbacks import StarIterationCallback
from star_keras.config import RunConfig, SamplingConfig, StarConfig, TrainingConfig
from star_keras.distribution import initialize, model_parallel, processes
from star_keras.models import GPTJCausalLM


def run(run_dir, address, process):
    if address:
        initialize(address, 2, process)
        keras.distribution.set_distribution(model_parallel("batch:2"))
    keras.utils.set_random_seed(0)
    model = GPTJCausalLM.from_preset("arithmetic_base")
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3, global_clipnorm=1.0, name="adam"),
        weighted_metrics=[],
    )
    config = StarConfig(
        sampling=SamplingConfig(
            few_shot=False,
            n_train_samples=60 if address else 120,
            max_new_tokens=64,
            sample_batch_size=16,
        ),
        training=TrainingConfig(
            schedule="steady",
            start_steps=30,
            add_steps=10,
            batch_size=4,
            sequence_length=128,
        ),
        run=RunConfig(checkpoint_steps=8),
    )
    task = tasks.get(
        "arithmetic", digits=[1, 2, 3], train_problems=100, eval_problems=20
    )
    star = StarIterationCallback(model, task, run_dir, config)
    model.fit(
        star.dataset,
        epochs=2 if address else 4,
        initial_epoch=star.initial_epoch,
        callbacks=[star],
        verbose=0,
        shuffle=False,
    )
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(processes.gather(variable.value).tobytes())
    if processes.is_writer():
        (star.run_dir / "digest").write_text(digest.hexdigest())


print("answer ready", flush=True)
for line in sys.stdin:
    run_dir, address, process = line.rstrip("\n").split("\t")
    pid = os.fork()
    if pid == 0:
        run(run_dir, address, int(process))
        sys.exit()
    print("answer", pid, flush=True)
    print("answer", os.waitpid(pid, 0)[1], flush=True)
