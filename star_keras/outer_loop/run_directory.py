"""The directory of a run: its configuration and its progress."""

import json
import math

import jax
from etils import epath

from star_keras.distribution import processes
from star_keras.outer_loop.run_checkpoints import RunCheckpoints, iteration_name
from star_keras.outer_loop.run_lock import RunLock
from star_keras.outer_loop.sample_store import SampleStore
from star_keras.utils import files
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import (
    append_json_lines,
    read_json_lines,
    write_json_lines,
)

# The phases of an iteration, in their order.
PHASES = ("begin", "sample", "rationalize", "select", "pack", "train", "evaluate")
# The layout of the files below; another layout is refused.
LAYOUT = 2


class RunDirectory:
    """What a run leaves on disk, and resumes from.

    - `config.json`: what the run is.
    - `manifest.jsonl`: a line for each finished phase, with its metrics.
    - `metrics.jsonl`: the same metrics, a line for each finished iteration.
    - `samples/`: see `SampleStore`.
    - `weights/` and `training/`: see `RunCheckpoints`.
    - `lock`: held by the running process; empty or missing otherwise.

    Nothing is made or written before `open()`. `trained` and `history` can be
    read before.

    Args:
        path: The directory, local or `gs://`; `~` is the user's home.

    Raises:
        ValueError: if the path is empty or that of a file.
    """

    def __init__(self, path):
        if not str(path).strip():
            raise invalid("run_dir", "the path of a directory", path)
        self.path = epath.Path(path).expanduser()
        if "://" not in str(self.path):
            self.path = self.path.absolute()
        if self.path.exists() and not self.path.is_dir():
            raise invalid("run_dir", "a directory, not a file", str(path))
        self.samples = SampleStore(self.path / "samples", writes=processes.is_writer())
        self.checkpoints = RunCheckpoints(self.path)
        self._lock = RunLock(self.path)
        self._manifest = self.path / "manifest.jsonl"
        self._phases = None

    def open(self, config: dict, free=frozenset()):
        """Make the directory this process's own; no-op if it is.

        Args:
            config: Configuration of the run, as JSON: groups of named values.
            free: Names whose values may differ from those of an earlier process.

        Raises:
            ValueError: if the directory is of another configuration or layout,
                or is not shared by all processes.
            RuntimeError: if another process works in it.
        """
        self._check_layout()
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._check_shared()
            self._check_config(json.loads(json.dumps(config)), free)
            self._phases = self._read_manifest()
            processes.sync("the run directory is read")
            self._write_metrics()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Let other processes in. No-op if it is not open."""
        self._phases = None  # another process may go on from here
        self._lock.release()

    # === What the run is ===

    def _read_config(self):
        path = self.path / "config.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _check_layout(self):
        found = self._read_config()
        if found is not None and found.get("layout") != LAYOUT:
            raise ValueError(
                f"The run directory {self.path} was written by another version of "
                f"star-keras: its layout is {found.get('layout', 1)}, this version "
                f"reads layout {LAYOUT}. Use another run_dir, or the version that "
                "began the run."
            )

    def _check_shared(self):
        """All processes must see the files of the writer, or they wait forever."""
        if jax.process_count() == 1:
            return
        token = processes.token()
        path = self.path / "token"
        if processes.is_writer():
            files.write(path, token)
        processes.sync("the run directory is there")
        if not path.exists() or path.read_bytes() != token:
            raise ValueError(
                "Invalid value for argument `run_dir`. Expected a directory that all "
                f"processes of the run share. Received: run_dir={str(self.path)!r}, "
                "where this process does not find what process 0 wrote. Use a "
                "network file system or a bucket."
            )
        processes.sync("the run directory is shared")
        if processes.is_writer():
            path.unlink()

    def _check_config(self, config, free):
        config = {"layout": LAYOUT, **config}
        found = self._read_config()
        processes.sync("the configuration is read")
        here, there = _flat(config), _flat(found or config)
        differing = [
            f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
            for name in sorted(here.keys() | there.keys())
            if name not in free and here.get(name) != there.get(name)
        ]
        if differing:
            remedy = "Continue with the same configuration, or use another directory."
            if "base_weights_crc32" in " ".join(differing):
                remedy += (
                    " Other base weights are also those of a model that was trained "
                    "already: load the base model again."
                )
            raise ValueError(
                f"The run directory {self.path} is of another configuration "
                f"({'; '.join(differing)}). {remedy}"
            )
        if found != config and processes.is_writer():
            text = json.dumps(config, indent=2) + "\n"
            files.write(self.path / "config.json", text.encode("utf-8"))

    # === How far the run is ===

    def _read_manifest(self):
        lines = read_json_lines(self._manifest, {"iteration", "phase"})
        return {
            (line.pop("iteration"), line.pop("phase")): {
                name: math.nan if value is None else value
                for name, value in line.items()
            }
            for line in lines
        }

    @property
    def _finished(self):
        if self._phases is not None:
            return self._phases
        self._check_layout()
        return self._read_manifest()

    @property
    def trained(self) -> int:
        """The last trained iteration; 0 before the first.

        Raises:
            ValueError: if the directory is of another layout, or a line of its
                manifest is malformed.
        """
        return max((i for i, phase in self._finished if phase == "train"), default=0)

    def is_done(self, iteration: int, phase: str) -> bool:
        """Whether a phase of an iteration is finished."""
        return (iteration, phase) in self._finished

    def finish(self, iteration: int, phase: str, metrics: dict):
        """Record a finished phase. No-op if the phase is already recorded.

        Args:
            iteration: The iteration.
            phase: One of `PHASES`.
            metrics: Numbers by name; NaN is recorded as `null`.

        Raises:
            OSError: if the manifest cannot be written; names it.
        """
        if self.is_done(iteration, phase):
            return
        if processes.is_writer():
            append_json_lines(self._manifest, [_line(iteration, phase, metrics)])
        self._phases[iteration, phase] = metrics
        if phase == PHASES[-1]:
            self._write_metrics()

    def metrics(self, iteration: int) -> dict:
        """Metrics of the finished phases of an iteration, NaN included."""
        return _metrics(self._finished, iteration)

    @property
    def history(self) -> list[dict]:
        """Metrics of each finished iteration and its number, without NaN."""
        finished = self._finished
        return [
            {"iteration": iteration}
            | {k: v for k, v in _metrics(finished, iteration).items() if v == v}
            for iteration, phase in sorted(finished)
            if phase == PHASES[-1]
        ]

    def _write_metrics(self):
        path = self.path / "metrics.jsonl"
        if processes.is_writer() and read_json_lines(path, set()) != self.history:
            write_json_lines(path, self.history)

    # === Starting over ===

    def rewind(self, iteration: int):
        """Move iterations from this one on to `discarded-<n>/`, to run them again.

        The directory must be open.

        Args:
            iteration: The first iteration to run again. The weights of the one
                before it must still be there.

        Raises:
            ValueError: if the iteration was not reached, or those weights are
                gone.
            OSError: if a file cannot be moved or written.
        """
        if not 1 <= iteration <= self.trained + 1:
            raise invalid("iteration", f"1 to {self.trained + 1}", iteration)
        names = self.checkpoints.weights.names()
        if iteration > 1 and iteration_name(iteration - 1) not in names:
            raise ValueError(
                f"Iteration {iteration} starts with the weights of iteration "
                f"{iteration - 1}, which are gone. Rewind to 1, or to one after "
                f"those that are there: {names}."
            )
        self.checkpoints.prune_training()
        last = self.trained + 1
        self._phases = {k: v for k, v in self._phases.items() if k[0] < iteration}
        if processes.is_writer():
            self._discard(range(iteration, last + 1))
        self._write_metrics()
        processes.sync("iterations are discarded")

    def _discard(self, iterations):
        earlier = [path.name.split("-")[1] for path in self.path.glob("discarded-*")]
        number = max(map(int, earlier), default=0) + 1
        discarded = self.path / f"discarded-{number}"
        discarded.mkdir()
        for name in ("manifest.jsonl", "metrics.jsonl"):
            if (self.path / name).exists():
                (self.path / name).copy(discarded / name)
        # The last weights first, the manifest last: a resume after a kill in
        # between misses those weights, and that is an error.
        for iteration in reversed(iterations):
            for path in (
                self.checkpoints.weights.directory / iteration_name(iteration),
                self.samples.iteration_directory(iteration),
            ):
                if path.exists():
                    target = discarded / path.parent.name / path.name
                    target.parent.mkdir(exist_ok=True)
                    path.rename(target)
        lines = [_line(i, phase, m) for (i, phase), m in self._phases.items()]
        write_json_lines(self._manifest, lines)


def _metrics(finished, iteration):
    return {
        name: value
        for phase in PHASES
        for name, value in finished.get((iteration, phase), {}).items()
    }


def _flat(config):
    """Named values by name, without the groups."""
    flat = {}
    for name, value in config.items():
        # Deeper values, e.g. of an optimizer, are compared as a whole.
        flat |= value if isinstance(value, dict) else {name: value}
    return flat


def _line(iteration, phase, metrics):
    # JSON has no NaN.
    metrics = {k: v if v == v else None for k, v in metrics.items()}
    return {"iteration": iteration, "phase": phase, **metrics}
