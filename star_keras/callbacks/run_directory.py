"""The directory of a run: what the run is, how far it is, and who is at it."""

import atexit
import json
import math
import os
import pathlib
import socket

import jax
from etils import epath

from star_keras import files
from star_keras.distribution import processes
from star_keras.distribution.checkpoints import Checkpoints
from star_keras.json_lines import append_json_lines, read_json_lines, write_json_lines
from star_keras.rationales import RationaleStore

# The phases of an iteration, in their order.
PHASES = ("sample", "rationalize", "pack", "train", "evaluate")

# Open files of the locks that this process holds, by directory.
_locks = {}


@atexit.register
def _close_locks():
    for file in _locks.values():
        file.close()


class RunDirectory:
    """What a run leaves on disk, and goes on from.

    - `config.json`: what the run is.
    - `manifest.jsonl`: a line for each phase of each iteration that is done, with
      its figures.
    - `metrics.jsonl`: the same, a line an iteration that is done.
    - `samples/`: see `RationaleStore`.
    - `weights/`: what iterations ended with.
    - `training/`: states of the training that is under way.
    - `lock`: held by the process that runs, empty or gone otherwise. (Not in
      buckets, which have no locks.)

    Args:
        path: The directory; made if needed.
        config: What the run is, as JSON.

    Raises:
        ValueError: if the directory is of another configuration, or not shared by
            all processes.
        RuntimeError: if another process is at it.
    """

    def __init__(self, path, config: dict):
        self.path = epath.Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(
                "Invalid value for argument `run_dir`. Expected a directory, or none "
                f"yet. Received: run_dir={str(path)!r}, which is a file."
            )
        self.samples = RationaleStore(
            self.path / "samples", writes=processes.is_writer()
        )
        self.weights = Checkpoints(self.path / "weights")
        self.training = Checkpoints(self.path / "training")
        self.lock()
        self._check_shared()
        self._check_config(json.loads(json.dumps(config)))
        self._manifest = self.path / "manifest.jsonl"
        self._phases = {
            (line.pop("iteration"), line.pop("phase")): {
                name: math.nan if value is None else value
                for name, value in line.items()
            }
            for line in read_json_lines(self._manifest, {"iteration", "phase"})
        }
        processes.sync("the run directory is read")
        self._write_metrics()

    def _check_shared(self):
        """All processes must see what the writer writes, or they would hang."""
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

    def lock(self):
        """Keep other processes out until `unlock`, or the end of this one."""
        path = (self.path / "lock").absolute()
        if not processes.is_writer() or "://" in str(path) or str(path) in _locks:
            return
        import fcntl  # not on Windows

        # Closing it would give the lock up.
        file = pathlib.Path(path).open("a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                owner = file.read() or "another process"
            raise RuntimeError(
                f"The run directory {self.path} is in use by {owner}. "
                "Wait for it or stop it, or use another directory."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _locks[str(path)] = file

    def unlock(self):
        """Let other processes in."""
        file = _locks.pop(str((self.path / "lock").absolute()), None)
        if file is not None:
            file.truncate(0)
            file.close()

    def _check_config(self, config):
        path = self.path / "config.json"
        if not path.exists():
            processes.sync("there is no configuration yet")
            if processes.is_writer():
                text = json.dumps(config, indent=2) + "\n"
                files.write(path, text.encode("utf-8"))
            return
        found = json.loads(path.read_text())
        processes.sync("the configuration is read")
        differing = [
            f"{key}: {found.get(key)!r} there, {config.get(key)!r} here"
            for key in sorted(config.keys() | found.keys())
            if config.get(key) != found.get(key)
        ]
        if differing:
            self.unlock()
            raise ValueError(
                f"The run directory {self.path} is of another configuration "
                f"({'; '.join(differing)}). Go on with the same configuration, or "
                "use another directory."
            )

    # === How far the run is ===

    @property
    def trained(self) -> int:
        """The last iteration whose training is done; 0 before the first."""
        return max((i for i, phase in self._phases if phase == "train"), default=0)

    def is_done(self, iteration: int, phase: str) -> bool:
        return (iteration, phase) in self._phases

    def finish(self, iteration: int, phase: str, figures: dict):
        """Note that a phase is done. Of a phase that is noted nothing changes."""
        if self.is_done(iteration, phase):
            return
        if processes.is_writer():
            append_json_lines(self._manifest, [_line(iteration, phase, figures)])
        self._phases[iteration, phase] = figures
        if phase == PHASES[-1]:
            self._write_metrics()

    def figures(self, iteration: int) -> dict:
        """Figures of an iteration's phases that are done, NaN among them."""
        return {
            name: value
            for phase in PHASES
            for name, value in self._phases.get((iteration, phase), {}).items()
        }

    @property
    def metrics(self) -> list[dict]:
        """Figures of the finished iterations, a dict each, without NaN."""
        return [
            {"iteration": iteration}
            | {k: v for k, v in self.figures(iteration).items() if v == v}
            for iteration, phase in sorted(self._phases)
            if phase == PHASES[-1]
        ]

    def _write_metrics(self):
        path = self.path / "metrics.jsonl"
        if processes.is_writer() and read_json_lines(path, set()) != self.metrics:
            write_json_lines(path, self.metrics)

    # === Weights ===

    def save_weights(self, iteration: int, variables):
        """Save what an iteration ended with."""
        self.weights.save(_name(iteration), variables)
        self.weights.wait()

    def forget_weights(self, keep: int):
        """Remove all but the last `keep`; only when the last are in the manifest."""
        for name in self.weights.names()[:-keep]:
            self.weights.delete(name)

    def restore_weights(self, iteration: int, variables):
        """Put what an iteration ended with into variables."""
        self.weights.restore(_name(iteration), variables)

    def save_training(self, iteration: int, step: int, variables):
        """Save the state of a training after a step, while it goes on."""
        for name in self.training.names()[:-1]:
            self.training.delete(name)
        self.training.save(f"{_name(iteration)}_step_{step:08d}", variables)

    def restore_training(self, iteration: int, variables) -> int:
        """Put the last saved state of a training into variables.

        Returns:
            The number of steps that it had made; 0, with the variables as they
            are, if none was saved.
        """
        prefix = f"{_name(iteration)}_step_"
        names = [n for n in self.training.names() if n.startswith(prefix)]
        if not names:
            return 0
        self.training.restore(names[-1], variables)
        return int(names[-1].removeprefix(prefix))

    def forget_training(self):
        """Remove the states of a training that is done."""
        for name in self.training.names():
            self.training.delete(name)

    # === Starting over ===

    def rewind(self, iteration: int):
        """Forget iterations from this one on; see the callback's `rewind`."""
        if not 1 <= iteration <= self.trained + 1:
            raise ValueError(
                "Invalid value for argument `iteration`. Expected 1 to "
                f"{self.trained + 1}. Received: iteration={iteration}."
            )
        if iteration > 1 and _name(iteration - 1) not in self.weights.names():
            raise ValueError(
                f"Iteration {iteration} starts with the weights of iteration "
                f"{iteration - 1}, which are gone. Rewind to 1, or to one after "
                f"those that are there: {self.weights.names()}."
            )
        self.forget_training()
        last = self.trained + 1
        self._phases = {k: v for k, v in self._phases.items() if k[0] < iteration}
        if processes.is_writer():
            number = sum(1 for _ in self.path.glob("discarded-*")) + 1
            discarded = self.path / f"discarded-{number}"
            discarded.mkdir()
            for name in ("manifest.jsonl", "metrics.jsonl"):
                if (self.path / name).exists():
                    (self.path / name).copy(discarded / name)
            # The manifest last: a kill before it leaves what it names missing,
            # and that is an error.
            for later in range(iteration, last + 1):
                for path in (
                    self.samples.path(later),
                    self.weights.directory / _name(later),
                ):
                    if path.exists():
                        path.rename(discarded / path.name)
            write_json_lines(
                self._manifest,
                [
                    _line(i, phase, figures)
                    for (i, phase), figures in self._phases.items()
                ],
            )
        self._write_metrics()
        processes.sync("iterations are discarded")


def _line(iteration, phase, figures):
    # NaN is no JSON.
    figures = {k: v if v == v else None for k, v in figures.items()}
    return {"iteration": iteration, "phase": phase, **figures}


def _name(iteration):
    return f"iteration_{iteration:04d}"
