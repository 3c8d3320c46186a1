"""The checkpoints of a run: weights after iterations, and a training under way."""

import contextlib
from collections.abc import Callable

from star_keras.distribution.checkpoints import Checkpoints
from star_keras.storage.iteration_names import (
    iteration_name,
    iteration_of,
    state_name,
    state_of,
)


class RunCheckpoints:
    """The two kinds of checkpoints of a run directory.

    - `weights/iteration_0001/`: the weights after an iteration.
    - `training/iteration_0001_step_00000500/`: the state of a training after a
      step: weights, optimizer and metrics.

    Every process of a run makes the same calls.

    Args:
        path: The run directory, an absolute `etils.epath.Path`.
        check: Called before a save; raises if the directory is no longer this run's.
    """

    def __init__(self, path, check: Callable[[], None] = lambda: None):
        self._check = check
        # States that this process found at the start, or has saved.
        self._own: set[str] = set()
        self.weights = Checkpoints(path / "weights")
        # Saved while a training waits, and soon removed.
        self.training = Checkpoints(path / "training", checksums=False)

    def save_weights(self, iteration: int, variables):
        """Save the weights after an iteration, asynchronously.

        Raises:
            OSError: if they cannot be written. An error after this call is that of
                the next call of `weights`.
            RuntimeError: if the directory is no longer this run's.
        """
        self._check()
        self.weights.save(iteration_name(iteration), variables)

    def wait_for_weights(self, iteration: int):
        """Wait until the weights of `save_weights` are on disk.

        Raises:
            OSError: if they cannot be written; also if their error was raised before.
        """
        self.weights.wait()
        if iteration_name(iteration) not in self.weights.names():
            raise OSError(
                f"The weights of iteration {iteration} could not be written to "
                f"{self.weights.directory}. Repeat the command: the training goes on "
                "from its last checkpoint."
            )

    def prune_weights(self, iteration: int, keep: int):
        """Remove the weights of iterations up to one, except the last `keep`.

        Call only after the iteration is in the manifest.
        """
        names = self.weights.names()
        own = [name for name in names if 0 < (iteration_of(name) or 0) <= iteration]
        for name in own[:-keep]:
            self.weights.delete(name)

    def restore_weights(self, iteration: int, variables):
        """Assign the weights after an iteration to variables.

        Raises:
            ValueError: if they are missing, damaged or of another model.
        """
        with self._remedy(iteration):
            self.weights.restore(iteration_name(iteration), variables)

    def check_weights(self, iteration: int) -> dict:
        """Check the weights after an iteration, see `Checkpoints.check`.

        Raises:
            ValueError: if they are missing or damaged.
        """
        with self._remedy(iteration):
            return self.weights.check(iteration_name(iteration))

    @contextlib.contextmanager
    def _remedy(self, iteration):
        try:
            yield
        except ValueError as error:
            rerun = self.first_rerun(iteration)
            raise ValueError(
                f"{error} To run again from iteration {rerun} on, add "
                f"--start_iter={rerun} once (in Python: `rewind({rerun})`)."
            ) from error

    def first_rerun(self, iteration: int) -> int:
        """The iteration to start again from if a file of an iteration is damaged.

        Returns:
            The last iteration up to this one that is the first, or follows one
            whose weights are stored.
        """
        names = self.weights.names()
        starts = (n for n in range(iteration, 1, -1) if iteration_name(n - 1) in names)
        return next(starts, 1)

    def wait(self):
        """Wait until the saves under way are on disk.

        Raises:
            OSError: if one cannot be written.
        """
        try:
            self.weights.wait()
        finally:
            self.training.wait()

    def remove_unfinished(self):
        """Remove partial checkpoints, which a kill within a save leaves."""
        for checkpoints in (self.weights, self.training):
            checkpoints.remove_unfinished()

    def start_training(self, is_packed: bool):
        """Tell which states of a training belong to this run.

        An earlier run in a removed directory of the same path may still write.

        Args:
            is_packed: Whether the manifest names the training set of the iteration
                under way. Without it no state is of this run, and all are removed.
        """
        self._own = set(self.training.names()) if is_packed else set()
        self._prune_foreign()

    def _prune_foreign(self):
        for name in self.training.names():
            if name not in self._own:
                self.training.delete(name)

    def save_training(self, iteration: int, step: int, variables):
        """Save the state of a training after a step, asynchronously.

        Raises:
            OSError: if this state or the one before it cannot be written.
            RuntimeError: if the directory is no longer this run's.
        """
        self._check()
        self._prune_foreign()
        for name in self.training.names()[:-1]:
            self.training.delete(name)
        name = state_name(iteration, step)
        self._own.add(name)
        self.training.save(name, variables)

    def restore_training(self, iteration: int, variables) -> int:
        """Assign the last saved state of a training of this run to variables.

        Returns:
            The step after which it was saved; 0, with the variables unchanged,
            if none was saved.

        Raises:
            ValueError: if it is damaged or of another model or optimizer.
        """
        self._prune_foreign()
        names = self._training_names(iteration)
        if not names:
            return 0
        try:
            self.training.restore(names[-1], variables)
        except ValueError as error:
            before = names[-2] if len(names) > 1 else "the start of the training"
            raise ValueError(
                f"{error} Or remove that directory (rm -r "
                f"{self.training.directory / names[-1]}) and give the same command: "
                f"the run goes on from {before}."
            ) from error
        return state_of(names[-1])[1]

    def training_step(self, iteration: int) -> int:
        """The step after which `restore_training` goes on; 0 without a state."""
        names = self._training_names(iteration)
        return state_of(names[-1])[1] if names else 0

    def _training_names(self, iteration):
        own = [name for name in self.training.names() if name in self._own]
        return [name for name in own if (state_of(name) or (0, 0))[0] == iteration]

    def prune_training(self):
        """Remove the states of a finished training."""
        for name in self.training.names():
            self.training.delete(name)
