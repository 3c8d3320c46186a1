"""Small models and tasks that the tests share."""

import atexit
import functools
import gc
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

# The tests run on CPU, whatever else there is.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiling takes longer than running models this small.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Halves the time of a compilation. (XLA aborts on a flag that it does not know.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_use_fusion_emitters=false"
    if importlib.metadata.version("jaxlib").startswith("0.10.")
    else "",
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Many tests compile the same, in this process, in others of pytest, and in those that
# tests start. (Not in the user's home.)
os.environ["JAX_COMPILATION_CACHE_DIR"] = (
    os.environ["JAX_COMPILATION_CACHE_DIR"]
    if "PYTEST_XDIST_WORKER" in os.environ
    else tempfile.mkdtemp()
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import hypothesis
import pytest

# JAX and Keras are imported in functions: the process that hands out the tests, before
# the others start, needs neither.
from tests import forks

# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("tests")


if "PYTEST_XDIST_WORKER" not in os.environ:
    atexit.register(
        shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True
    )

PROGRAMS, ROOT = forks.PROGRAMS, forks.ROOT


# As in `tests.preload`.
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    """Thousands of them in one process are more mappings than Linux allows (65530)."""
    yield
    mappings = pathlib.Path("/proc/self/maps")
    if not mappings.exists() or mappings.read_bytes().count(b"\n") > 20_000:
        import jax

        jax.clear_caches()
        gc.collect()


def xla_flags(num_devices):
    """The flags of this process, and virtual devices on its CPU."""
    devices = f"--xla_force_host_platform_device_count={num_devices}"
    return f"{os.environ['XLA_FLAGS']} {devices}"


def run_on_eight_devices(program, *arguments):
    """The JSON that a program of `tests/programs` prints; has `"devices": 8`.

    JAX takes its devices at the start, so it is a process of its own.

    Args:
        program: Name of the program, without `.py`.
        *arguments: Its arguments.
    """
    done = forks.run(program, *arguments, environment={"XLA_FLAGS": xla_flags(8)})
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["devices"] == 8
    return found


def run_with_torch(program, *arguments):
    """Run a program of `tests/programs` that needs PyTorch and transformers.

    It is a process of its own: PyTorch must not be imported after TensorFlow.
    Skips the test where a package is missing.
    """
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, PROGRAMS / f"{program}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_experiment(script, *arguments):
    """Run the module `experiments.<script>`; a `subprocess.CompletedProcess`."""
    return forks.run(f"experiments.{script}", *arguments)


@pytest.fixture
def doubling():
    from star_keras import testing

    return testing.Doubling()


@pytest.fixture(scope="session")
def byte_tokenizer():
    from star_keras import testing

    return testing.byte_tokenizer()


@pytest.fixture
def make_model(byte_tokenizer):
    from star_keras import testing

    return functools.partial(testing.tiny_gpt_j, tokenizer=byte_tokenizer)
