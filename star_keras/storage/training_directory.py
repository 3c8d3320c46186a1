"""The directory of one training without an outer loop: metrics and checkpoints."""

import contextlib

from star_keras.distribution import processes
from star_keras.storage.iteration_names import iteration_name
from star_keras.storage.run_checkpoints import RunCheckpoints
from star_keras.storage.run_configuration import (
    make_run_directory,
    run_directory_path,
    settle_configuration,
)
from star_keras.storage.run_lock import RunLock
from star_keras.utils.json_lines import (
    append_json_lines,
    read_json_lines,
    write_json_lines,
)

# Checkpoints have the names of a run's: this training is one iteration.
_ITERATION = 1


class TrainingDirectory:
    """The files of a training, from which it resumes.

    - `config.json`: the configuration.
    - `metrics.jsonl`: a line for each evaluation.
    - `training/`: checkpoints of a training under way or stopped.
    - `weights/`: the weights of a finished training.
    - `lock`: held by the training process.

    Args:
        path: The directory, local or `gs://`; `~` is the user's home.

    Attributes:
        path: The absolute path.
        lock: The `RunLock`.

    Raises:
        ValueError: if the path is empty or that of a file.
    """

    def __init__(self, path):
        self.path = run_directory_path(path)
        self.lock = RunLock(self.path)
        self._metrics = self.path / "metrics.jsonl"
        self._checkpoints = RunCheckpoints(self.path, self.lock.check)

    @contextlib.contextmanager
    def opened(self, config: dict):
        """A context in which the directory is this object's own.

        Args:
            config: Configuration of the training, as JSON.

        Raises:
            ValueError: if the directory is of another configuration, a file is damaged,
                or it is not shared by all processes.
            RuntimeError: if another process, or another fit, works in it.
            OSError: if a file cannot be written.
        """
        make_run_directory(self.path)
        self.lock.acquire()
        try:
            settle_configuration(self.path, config)
            self._checkpoints.remove_unfinished()
            self._checkpoints.start_training(True)
            self._drop_metrics_after(self.step)
            yield
        finally:
            try:
                # The next training in this process would find it unfinished.
                self._checkpoints.training.wait()
            finally:
                self.lock.release()

    @property
    def is_finished(self) -> bool:
        """Whether the training is finished."""
        return iteration_name(_ITERATION) in self._checkpoints.weights.names()

    @property
    def step(self) -> int | None:
        """The step that the training goes on after; `None` if it is finished."""
        if self.is_finished:
            return None
        return self._checkpoints.training_step(_ITERATION)

    # === Metrics ===

    @property
    def metrics(self) -> list[dict]:
        """The lines of `metrics.jsonl`.

        Raises:
            ValueError: if a line is damaged.
        """
        return read_json_lines(self._metrics, {"step"})

    def record(self, line: dict):
        """Append a line to `metrics.jsonl`."""
        self.lock.check()
        if processes.is_writer():
            append_json_lines(self._metrics, [line])

    def _drop_metrics_after(self, step):
        """Drop the lines of steps that are made again."""
        lines = self.metrics
        kept = [line for line in lines if step is None or line["step"] <= step]
        processes.sync("the metrics are read")
        if kept != lines and processes.is_writer():
            write_json_lines(self._metrics, kept)
        processes.sync("the metrics are those of the checkpoint")

    # === Checkpoints ===

    def save(self, step: int, variables, wait: bool = False):
        """Save the state after a step, in the background unless `wait`.

        Raises:
            OSError: if this state or the one before it cannot be written.
            RuntimeError: if the directory was removed or replaced.
        """
        self._checkpoints.save_training(_ITERATION, step, variables)
        if wait:
            self._checkpoints.training.wait()
            self.lock.check()  # it was perhaps removed meanwhile

    def restore(self, variables):
        """Assign the state after `step` to variables; see `RunCheckpoints`."""
        self._checkpoints.restore_training(_ITERATION, variables)

    def finish(self, variables):
        """Save the weights of the finished training, and remove its checkpoints."""
        self._checkpoints.save_weights(_ITERATION, variables)
        self._checkpoints.weights.wait()
        self._checkpoints.prune_training()

    def restore_weights(self, variables):
        """Assign the weights of the finished training to variables.

        Raises:
            ValueError: if they are damaged or of another model.
        """
        name = iteration_name(_ITERATION)
        self._checkpoints.weights.restore(name, variables)
