"""The directory of a run: its configuration and its progress."""

from star_keras.distribution import processes
from star_keras.storage.discarded import discard, discard_beyond_manifest
from star_keras.storage.iteration_names import iteration_name
from star_keras.storage.manifest import (
    PHASES,
    Phase,
    Phases,
    history_of,
    manifest_line,
    metrics_of,
    read_manifest,
    recorded_files,
    trained_iterations,
)
from star_keras.storage.run_checkpoints import RunCheckpoints
from star_keras.storage.run_configuration import (
    make_run_directory,
    read_configuration,
    run_directory_path,
    settle_configuration,
)
from star_keras.storage.run_lock import RunLock
from star_keras.storage.sample_store import SampleStore
from star_keras.utils import files
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import (
    append_json_lines,
    json_line_bytes,
    write_json_lines,
)


class RunDirectory:
    """The files of a run, from which it resumes.

    - `config.json`: the configuration of the run.
    - `manifest.jsonl`: a line for each finished phase, with its metrics and the
      digests of its files.
    - `metrics.jsonl`: the same metrics, a line for each finished iteration.
    - `samples/`: see `SampleStore`.
    - `weights/` and `training/`: see `RunCheckpoints`.
    - `lock`: held by the running process; empty or missing otherwise.

    Nothing is made or written before `open()`. `trained` and `history` can be
    read before.

    Args:
        path: The directory, local or `gs://`; `~` is the user's home.

    Attributes:
        path: The absolute path.
        manifest: The path of the manifest.
        samples: The `SampleStore`.
        checkpoints: The `RunCheckpoints`.
        lock: The `RunLock`.

    Raises:
        ValueError: if the path is empty or that of a file.
    """

    def __init__(self, path):
        self.path = run_directory_path(path)
        self.lock = RunLock(self.path)
        self.checkpoints = RunCheckpoints(self.path, self.lock.check)
        self.samples = SampleStore(
            self.path / "samples",
            writes=processes.is_writer(),
            first_rerun=self.checkpoints.first_rerun,
            check=self.lock.check,
        )
        self.manifest = self.path / "manifest.jsonl"
        self._phases: Phases | None = None
        # A training whose weights are being saved: iteration, metrics, `keep`.
        self._unrecorded: tuple[int, dict, int] | None = None

    def open(self, config: dict, free=frozenset()):
        """Make the directory this object's own, until `close`.

        Removes partial checkpoints, and states of a training that the manifest
        does not name. Moves files of phases beyond the end of the manifest to
        `discarded-<n>/`: it was truncated, with a warning, or a kill came before its
        last line.

        Args:
            config: Configuration of the run, as JSON: groups of named values.
            free: Names whose values may differ from those of an earlier process.

        Raises:
            ValueError: if the directory is of another configuration or layout,
                a file is damaged, or it is not shared by all processes.
            RuntimeError: if another process, or another fit, works in it.
            OSError: if a file cannot be moved or written.
        """
        make_run_directory(self.path)
        self.lock.acquire()
        try:
            settle_configuration(self.path, config, free)
            self._phases = self.read_phases()
            self.samples.finished.recorded = recorded_files(self._phases)
            processes.sync("the run directory is read")
            self.checkpoints.remove_unfinished()
            if processes.is_writer():
                discard_beyond_manifest(
                    self.path, self._phases, self.samples.directory, self.checkpoints
                )
            processes.sync("the run directory is as its manifest says")
            self.write_metrics()
            next_iteration = trained_iterations(self._phases) + 1
            self.checkpoints.start_training((next_iteration, "pack") in self._phases)
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it is this object's own, see `open`."""
        return self._phases is not None

    def close(self):
        """Let others in, when nothing is being saved. No-op if it is not open.

        Raises:
            OSError: if the save under way cannot be written.
        """
        self._phases = self._unrecorded = None  # others may go on from here
        try:
            self.checkpoints.wait()
        finally:
            self.lock.release()

    # === How far the run is ===

    def read_phases(self) -> Phases:
        """The finished phases in `manifest.jsonl`.

        Raises:
            ValueError: if a line is malformed or missing.
        """
        try:
            return read_manifest(self.manifest)
        except ValueError as error:
            raise ValueError(
                f"{error} Put the file back. Or remove this line and all lines after "
                "it: the run goes on from there."
            ) from None

    @property
    def _finished(self):
        if self._phases is not None:
            return self._phases
        read_configuration(self.path)
        return self.read_phases()

    @property
    def trained(self) -> int:
        """The last trained iteration; 0 before the first.

        Raises:
            ValueError: if the directory is of another layout, or a line of its
                manifest is malformed.
        """
        return trained_iterations(self._finished)

    def is_done(self, iteration: int, phase: str) -> bool:
        """Whether a phase of an iteration is finished."""
        return (iteration, phase) in self._finished

    def finish(self, iteration: int, phase: str, metrics: dict):
        """Record a finished phase. No-op if the phase is already recorded.

        A training before it is recorded first, see `finish_training`.

        Args:
            iteration: The iteration.
            phase: One of `PHASES`.
            metrics: Numbers by name; NaN is recorded as `null`.

        Raises:
            OSError: if the manifest cannot be written; names it.
            RuntimeError: if the directory was removed or replaced.
        """
        if self.is_done(iteration, phase):
            return
        self.record_training()
        self.lock.check()
        # (New files after a training are those of its evaluation.)
        store = self.samples.finished
        new_files = {} if phase == "train" else store.new_digests(iteration)
        finished = Phase(metrics=metrics, files=new_files)
        if processes.is_writer():
            line = manifest_line(iteration, phase, finished)
            append_json_lines(self.manifest, [line])
        self._phases[iteration, phase] = finished
        for name, digest in new_files.items():
            store.recorded[iteration, name] = digest
        if phase == PHASES[-1]:
            self.write_metrics()

    def finish_training(self, iteration: int, variables, metrics: dict, keep: int):
        """Save the trained weights in the background, see `record_training`.

        Args:
            iteration: The iteration.
            variables: The variables of the model.
            metrics: Metrics of the training.
            keep: Number of iterations whose weights stay.

        Raises:
            OSError: if they cannot be written.
            RuntimeError: if the directory was removed or replaced.
        """
        self.checkpoints.save_weights(iteration, variables)
        self._unrecorded = iteration, metrics, keep

    def record_training(self, wait: bool = True):
        """Record the last training once its weights are on disk; else a no-op.

        Then older weights and the states of the training are removed. Processes may
        record it at different moments.

        Args:
            wait: Whether to wait for the weights.

        Raises:
            OSError: if the weights or the manifest cannot be written.
            RuntimeError: if the directory was removed or replaced.
        """
        is_ready = wait or not self.checkpoints.weights.is_saving()
        if self._unrecorded is None or not is_ready:
            return
        # Taken first: weights that cannot be written are never recorded.
        (iteration, metrics, keep), self._unrecorded = self._unrecorded, None
        self.checkpoints.wait_for_weights(iteration)
        self.finish(iteration, "train", metrics)
        if processes.is_writer():  # the others would list what is being removed
            self.checkpoints.prune_weights(iteration, keep)
            self.checkpoints.prune_training()

    def metrics(self, iteration: int) -> dict:
        """Metrics of the finished phases of an iteration, NaN included."""
        return metrics_of(self._finished, iteration)

    @property
    def history(self) -> list[dict]:
        """Metrics of each finished iteration and its number, without NaN."""
        return history_of(self._finished)

    def write_metrics(self):
        """Write `metrics.jsonl`, if it does not hold the history already."""
        path, content = self.path / "metrics.jsonl", json_line_bytes(self.history)
        if (
            processes.is_writer()
            and (path.read_bytes() if path.exists() else b"") != content
        ):
            files.write(path, content)

    # === Starting over ===

    def rewind(self, iteration: int):
        """Move iterations from this one on to `discarded-<n>/`, to run them again.

        The directory must be open. With iteration 1, a damaged evaluation of the
        base model moves too.

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
        last, finished = self.trained + 1, self.samples.finished
        first = 0 if iteration == 1 and not finished.is_whole(0) else iteration
        self._phases = {k: v for k, v in self._phases.items() if k[0] < first}
        finished.recorded = {k: v for k, v in finished.recorded.items() if k[0] < first}
        # Files move only after all processes have checked them for damage.
        processes.sync("iterations to discard are known")
        if processes.is_writer():
            # The last weights first, the manifest last: a resume after a kill in
            # between misses those weights, and that is an error.
            paths = (
                path
                for number in range(last, first - 1, -1)
                for path in (
                    self.checkpoints.weights.directory / iteration_name(number),
                    self.samples.iteration_directory(number),
                )
            )
            discard(self.path, [path for path in paths if path.exists()])
            lines = [manifest_line(*key, phase) for key, phase in self._phases.items()]
            write_json_lines(self.manifest, lines)
        self.write_metrics()
        processes.sync("iterations are discarded")
