"""Small models and tasks that the tests share."""

import atexit
import concurrent.futures
import gc
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time

# The tests run on CPU, whatever else there is.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes longer than running models this small.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Many tests compile the same, and so do the processes that they start. (Not in
# the user's home.)
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp()
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import hypothesis
import jax
import keras
import pytest
from tokenizers import pre_tokenizers

from star_keras import tasks
from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    GPTJCausalLMPreprocessor,
    GPTJTokenizer,
)

# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")


atexit.register(
    shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True
)

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    """Thousands of them in one process are more mappings than Linux allows."""
    yield
    jax.clear_caches()
    gc.collect()


def run_on_eight_devices(program, *arguments):
    """The JSON that a Python program prints; it must hold `"devices": 8`.

    JAX takes its devices at the start, so it is a process of its own.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["devices"] == 8
    return found


def run_experiment(script, *arguments):
    """Run `python -m experiments.<script>`; a `subprocess.CompletedProcess`."""
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{script}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def run_processes(program, *arguments, timeout=300, experiment=False):
    """Run a program as two processes of two devices each.

    It gets the arguments, the coordinator's address and its number, 0 or 1;
    an experiment gets them as flags.

    Returns:
        Two `subprocess.CompletedProcess`, with the time each `ended`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }

    def run(number):
        last = [coordinator, str(number)]
        start = ["-c", program]
        if experiment:
            start = ["-m", f"experiments.{program}"]
            last = [f"--coordinator={coordinator}", f"--process_id={number}"]
            last.append("--num_processes=2")
        done = subprocess.run(
            [sys.executable, *start, *map(str, arguments), *last],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        done.ended = time.time()
        return done

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, (0, 1)))


class Doubling(tasks.Task):
    """A task of ten lines, as a user would write one."""

    name = "doubling"

    def __init__(self, train=24, held_out=6):
        self._counts = {"train": train, "eval": held_out}

    def problems(self, split):
        start = 0 if split == "train" else 100
        return [
            tasks.Problem(
                id=f"double-{n}",
                question=f"What is twice {n}?",
                answer=str(2 * n),
                problem_class="even" if n % 2 == 0 else "odd",
            )
            for n in range(start, start + self._counts[split])
        ]

    few_shot_examples = (
        tasks.FewShotExample(
            problem=tasks.Problem(
                id="shown", question="What is twice 50?", answer="100"
            ),
            rationale="50 + 50 = 100.",
        ),
    )


@pytest.fixture
def doubling():
    return Doubling()


@pytest.fixture(scope="session")
def byte_tokenizer():
    """A tokenizer with one token a byte, and one merge, which it needs."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *alphabet, "qz"]
    return GPTJTokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)}, merges=["q z"]
    )


@pytest.fixture
def make_model(byte_tokenizer):
    """Makes a small random GPT-J, the same for the same seed."""

    def make(seed=0, max_sequence_length=256, **kwargs):
        keras.utils.set_random_seed(seed)
        sizes = {
            "vocabulary_size": 258,
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 32,
            "intermediate_dim": 64,
            "rotary_dim": 8,
            "max_sequence_length": max_sequence_length,
        }
        model = GPTJCausalLM(
            GPTJBackbone(**{**sizes, **kwargs}),
            GPTJCausalLMPreprocessor(byte_tokenizer, sequence_length=64),
        )
        model.compile(
            optimizer=keras.optimizers.Adam(1e-3, name="adam"), weighted_metrics=[]
        )
        return model

    return make
