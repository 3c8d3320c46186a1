"""One of the processes that run together, or of which one dies.

Arguments: a directory with a `preset`, the name of the case, the address of the
coordinator, the number of the process, the number of processes.
"""

import experiments  # noqa: F401  isort: skip  (before keras: selects the backend)

import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
from absl import app
from jax.experimental import multihost_utils

from experiments import star
from star_keras import distribution, testing
from star_keras.callbacks import StarIterationCallback
from star_keras.config import StarConfig, TrainingConfig
from star_keras.distribution import processes
from star_keras.storage.run_directory import RunDirectory
from star_keras.storage.sample_store import SampleStore

FLAGS = (
    *("--digits=1", "--train_problems=6", "--eval_problems=4", "--nofew_shot"),
    *("--iterations=1", "--start_steps=2", "--learning_rate=1e-3"),
    *("--batch_size=4", "--sequence_length=128", "--warmup_steps=0", "--verbose=0"),
    *("--max_new_tokens=48", "--sample_batch_size=8", "--temperature=0.3"),
)
MESHES = {
    "batch": ("--mesh=batch:4", "--zero"),
    "model": ("--mesh=model:4",),
    "slice": ("--mesh=slice:2,batch:2", "--zero"),
}
# Flags of process 1 alone.
OTHERS = {"other_flag": "--temperature=0.4", "other_problems": "--train_problems=5"}


def raise_an_error(other):
    raise ValueError("no file")


def be_killed(other):
    os.kill(os.getpid(), signal.SIGKILL)


def fall_silent(other):
    # A stopped process sends no heartbeats. The shell kills it after the other.
    wait = f"for i in $(seq 80); do kill -0 {other} || break; sleep 0.2; done"
    subprocess.Popen(["sh", "-c", f"{wait} 2>/dev/null; kill -9 {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


DEATHS = {"exception": raise_an_error, "kill": be_killed, "silence": fall_silent}


def die(way, address):
    distribution.initialize(address, count, number, timeout_seconds=10)
    pid = multihost_utils.broadcast_one_to_all(np.array(os.getpid()))
    print("start", time.time(), flush=True)
    processes.sync("all have printed")
    if number == 1:
        time.sleep(1)
        DEATHS[way](int(pid))
    processes.sync("end")


def wait_for_the_others(address):
    distribution.initialize(address, count, number, start_seconds=2)


def open_directories_of_their_own(address):
    distribution.initialize(address, count, number)
    RunDirectory(directory / f"run-{number}").open({})


def fit_new_weights(run_dir, address):
    if count > 1:
        distribution.initialize(address, count, number)
        keras.distribution.set_distribution(distribution.model_parallel("batch:2"))
    model = testing.tiny_gpt_j()
    sampler = testing.ScriptedSampler(double_odd_numbers, batch_size=2)
    training = TrainingConfig(
        batch_size=2, sequence_length=128, start_steps=3, schedule="steady"
    )
    config = StarConfig(training=training)
    star = StarIterationCallback(
        model, testing.Doubling(), run_dir, config, sampler=sampler
    )
    # The second iteration starts from the copy of the new weights.
    star.fit(2, verbose=0)


def double_odd_numbers(request):
    question = int(request.name.removeprefix("double-"))
    return f" The answer is {2 * question if question % 2 else 7}."


def run_star(name, *flags):
    paths = (f"--preset={directory / 'preset'}", f"--run_dir={directory / name}")
    app.run(star.main, ["star", *FLAGS, *paths, *flags])


def run_star_with_another_flag(name, address):
    numbers = (f"--num_processes={count}", f"--process_id={number}")
    other = OTHERS[name] if number else "--verbose=0"
    run_star(name, "--mesh=batch:4", f"--coordinator={address}", *numbers, other)


def run_star_in_two_processes(name, address):
    append = SampleStore.append

    def append_slowly(*arguments):
        # The other process waits for the samples before it reads them.
        if processes.is_writer():
            time.sleep(1)
        append(*arguments)

    SampleStore.append = append_slowly
    numbers = (f"--num_processes={count}", f"--process_id={number}")
    run_star(name, *MESHES[name], f"--coordinator={address}", *numbers)


directory, name, address, number, count = sys.argv[1:]
directory, number, count = pathlib.Path(directory), int(number), int(count)
if name in DEATHS:
    die(name, address)
elif name == "wait":
    wait_for_the_others(address)
elif name == "not_shared":
    open_directories_of_their_own(address)
elif name == "new_weights":
    fit_new_weights(directory / f"{name}_{count}", address)
elif name in OTHERS:
    run_star_with_another_flag(name, address)
elif name in MESHES:
    run_star_in_two_processes(name, address)
else:
    run_star(name)
