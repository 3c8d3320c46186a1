"""Comparisons: the rows of a table, each measured in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "peers_python",
    sys.executable,
    "Python interpreter for the rows of PyTorch, whose libraries may be in another "
    "environment.",
)

_TRANSFORMERS = ("torch", "transformers")
# Libraries of the rows that `python -m benchmarks.peers` measures.
ALONE = {
    "transformers": _TRANSFORMERS,
    "transformers_prefix": _TRANSFORMERS,
    "vllm": ("vllm",),
    "llama_cpp": ("llama_cpp", "gguf", "safetensors"),
}


def missing_libraries(name: str) -> str:
    """Why a row cannot be measured, and what to do; `""` if it can."""
    libraries = ALONE.get(name, ())
    program = (
        "import importlib.util, sys\n"
        "print(*(x for x in sys.argv[1:] if not importlib.util.find_spec(x)))"
    )
    command = [FLAGS.peers_python, "-c", program, *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    missing = done.stdout.split()
    if not missing:
        return ""
    return (
        f"{name} needs {' and '.join(missing)}. Install it in an environment of its "
        "own, see benchmarks/README.md, and give its interpreter as --peers_python."
    )


def choose(names: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    """The rows to measure.

    Args:
        names: The rows of the benchmark.
        wanted: Some of them. Defaults to those whose libraries are installed;
            prints the others.

    Raises:
        app.UsageError: if a wanted row does not exist.
        SystemExit: if a wanted row lacks a library.
    """
    for name in wanted or ():
        if name not in names:
            raise app.UsageError(
                f"--peers has {name!r}. Expected some of {list(names)}."
            )
        if reason := missing_libraries(name):
            raise SystemExit(reason)
    if wanted:
        return list(wanted)
    chosen = []
    for name in names:
        if reason := missing_libraries(name):
            print(f"Left out: {reason}", flush=True)
        else:
            chosen.append(name)
    return chosen


def measure_peer(directory: str, job: dict) -> dict:
    """Run `python -m benchmarks.peers`.

    Args:
        directory: A Hugging Face directory. `job.json` is written into it.
        job: What to do, see `benchmarks/peers/__main__.py`.

    Returns:
        The measurements.

    Raises:
        SystemExit: if the process fails.
    """
    Path(directory, "job.json").write_text(json.dumps(job))
    _run([FLAGS.peers_python, "-m", "benchmarks.peers", directory], job["peer"])
    return json.loads(Path(directory, "measurements.json").read_text())


def measure_alone(module: str, arguments: Sequence[str], name: str) -> dict:
    """Run `python -m module --peer=name`.

    Args:
        module: The benchmark.
        arguments: Its other flags.
        name: The row.

    Returns:
        The JSON object in the last line that the process prints.

    Raises:
        SystemExit: if the process fails.
    """
    command = [sys.executable, "-m", module, *arguments, f"--peer={name}"]
    return json.loads(_run(command, name).splitlines()[-1])


def _run(command, name):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed with exit code {done.returncode}.")
    return done.stdout
