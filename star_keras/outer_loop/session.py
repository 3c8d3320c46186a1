"""The work of a process in a run directory: lock, base model and SIGTERM."""

import contextlib
import functools
import importlib.util
import weakref
from collections.abc import Callable

import keras

from star_keras.config import StarConfig
from star_keras.distribution.preemption import PreemptionNotice, end_preempted
from star_keras.outer_loop.base_model import BaseModel
from star_keras.outer_loop.iteration import OuterLoop
from star_keras.outer_loop.progress import Progress
from star_keras.storage.run_directory import RunDirectory
from star_keras.utils.errors import invalid
from star_keras.utils.settings import free_settings


class Session:
    """Holds a run directory while a model is fitted in it.

    Nothing is copied, hashed or locked before `open()`. The end of `fit` closes it.

    Args:
        model: A compiled `keras_hub.models.CausalLM`.
        run: The run directory.
        loop: Describes the run.
        progress: Closed at the end of the session.

    Attributes:
        base: The `BaseModel`, `None` before the first `open()`.
        datasets: Weak references to the training datasets that were made for it.
    """

    def __init__(self, model, run: RunDirectory, loop: OuterLoop, progress: Progress):
        self._model = model
        self._run, self._loop, self._progress = run, loop, progress
        self._preemption = PreemptionNotice()
        self.base: BaseModel | None = None
        self.datasets = weakref.WeakSet()
        _wrap_fit(model, self)

    def open(self):
        """Copy the base model at the first call, and lock the run directory.

        Raises:
            ValueError: if the loss is not a weighted mean, the optimizer has
                made steps, or the directory is of another configuration.
            RuntimeError: if another process, or another fit, works in the directory.
        """
        if self.base is None:
            self.base = BaseModel(self._model)
        self.base.renew_optimizer()
        self._run.open(
            {**self._loop.describe(), "model": self.base.describe()},
            free_settings(StarConfig),
        )

    def start(self):
        """Open the directory, catch SIGTERM and Ctrl-C, restore the latest weights.

        Raises:
            ValueError: see `open`; if weights or files of samples are missing or
                damaged.
            RuntimeError: see `open`.
        """
        is_base = self.base is None  # the model is untouched before the first copy
        self.open()
        with self.closed_on_error():
            self._run.samples.finished.check()
            self._preemption.start()
            done = self._run.trained
            if done:
                self._run.checkpoints.restore_weights(done, self._model.variables)
                self.set_learning_rate(done)
            elif not is_base:
                self.base.restore()

    @property
    def is_open(self) -> bool:
        """Whether a fit is under way."""
        return self._run.is_open

    def close(self):
        """Unlock the directory, and restore the signal handlers."""
        self._progress.close()
        self._preemption.stop()
        self._run.close()

    @contextlib.contextmanager
    def closed_on_error(self):
        """A context that closes the session after an exception."""
        try:
            yield
        except BaseException as error:
            try:
                # An evaluation that fails does not lose the training before it.
                if isinstance(error, Exception):
                    self._run.record_training()
            finally:
                self.close()
            raise

    def rewind(self, iteration: int):
        """Discard iterations from this one on, see `RunDirectory.rewind`.

        Raises:
            ValueError: see `open` and `RunDirectory.rewind`.
            RuntimeError: see `open`.
        """
        self.open()  # if another fit has it, that one goes on
        try:
            self._run.rewind(iteration)
            if iteration == 1:
                self.base.restore_learning_rate()
        finally:
            self.close()

    def set_learning_rate(self, iteration: int):
        """Assign the recorded learning rate of an iteration, if there is one."""
        variable, metrics = self.base.learning_rate, self._run.metrics(iteration)
        if variable is not None and "learning_rate" in metrics:
            variable.assign(metrics["learning_rate"])

    def is_preempted(self) -> bool:
        """Whether to end, see `PreemptionNotice`. All processes ask equally often."""
        return self._preemption.received()

    def between_batches(self):
        """Record a training whose weights are on disk by now; end after SIGTERM.

        All samples are on disk.

        Raises:
            Preempted: see `end_preempted`.
            OSError: if the weights cannot be written.
        """
        self._run.record_training(wait=False)
        if self.is_preempted():
            self.end_preempted()

    def end_preempted(self, save: Callable[[], None] = lambda: None):
        """End the program after SIGTERM or Ctrl-C.

        Args:
            save: Saves what is under way, see `end_preempted` of the notice's module.

        Raises:
            Preempted: a `SystemExit` of code 75, after Ctrl-C 130.
            OSError: if it cannot be saved.
            RuntimeError: if the run directory was removed meanwhile.
        """

        def save_and_check():
            save()
            self._run.record_training()
            self._run.checkpoints.training.wait()
            self._run.lock.check()  # it was perhaps removed meanwhile

        end_preempted(
            self._preemption,
            self._run.path,
            save_and_check,
            self.close,
            "Repeat the command, without --start_iter, to resume.",
        )


def _check_callbacks(callbacks):
    """Raise errors of Keras's callbacks before the sampling, not after it."""
    boards = [x for x in callbacks if isinstance(x, keras.callbacks.TensorBoard)]
    if boards and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "The callback TensorBoard needs the package tensorboard. Install it "
            "with `pip install tensorboard`, or leave the callback out."
        )


def _check_dataset(dataset, callbacks, sessions):
    """A dataset is empty, and has no end, without its callback."""
    for session in sessions:
        is_its_own = any(dataset is x for x in session.datasets)
        is_there = any(getattr(x, "_session", None) is session for x in callbacks)
        if is_its_own and not is_there:
            rule = "the callback of the dataset among them"
            raise invalid("callbacks", rule, callbacks)


def _wrap_fit(model, session):
    """Let `model.fit` check its arguments, and close a session after every error."""
    fit = model.fit
    sessions = getattr(fit, "star_sessions", None)
    if sessions is None:
        sessions = weakref.WeakSet()

        @functools.wraps(fit)
        def fit_and_close(*args, **kwargs):
            # (KerasHub's `fit` takes all but the first by keyword alone.)
            callbacks = kwargs.get("callbacks")
            callbacks = getattr(callbacks, "callbacks", callbacks) or ()
            callbacks = keras.tree.flatten(callbacks)
            _check_callbacks(callbacks)
            _check_dataset(args[0] if args else kwargs.get("x"), callbacks, sessions)
            others = [session for session in sessions if session.is_open]
            with contextlib.ExitStack() as stack:
                for session in list(sessions):
                    if session not in others:
                        stack.callback(session.close)
                return fit(*args, **kwargs)

        # The sessions of later callbacks join these.
        fit_and_close.star_sessions = sessions
        # Keras would track the function as state.
        object.__setattr__(model, "fit", fit_and_close)
    sessions.add(session)
