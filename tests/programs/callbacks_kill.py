"""A run; arguments: its directory, the coordinator's address or "", the process."""

import experiments  # noqa: F401  isort: skip  (freed memory is kept)

import hashlib
import sys

import jax
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
            n_train_samples=24 if address else 48,
            max_new_tokens=64,
            sample_batch_size=16,
        ),
        training=TrainingConfig(
            schedule="steady",
            start_steps=8 if address else 16,
            add_steps=4,
            batch_size=4,
            sequence_length=128,
        ),
        run=RunConfig(checkpoint_steps=4),
    )
    task = tasks.get(
        "arithmetic", digits=[1, 2, 3], train_problems=100, eval_problems=20
    )
    star = StarIterationCallback(model, task, run_dir, config)
    model.fit(
        star.dataset,
        epochs=2 if address else 3,
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


# As good as the real thing, unlike the other tests.
jax.config.update("jax_disable_most_optimizations", False)
run_dir, address, process = sys.argv[1:]
run(run_dir, address, int(process))
