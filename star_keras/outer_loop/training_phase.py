"""The training of an iteration: its first step, checkpoints and end."""

import time

from star_keras.config import StarConfig
from star_keras.models.max_sequence_length import max_sequence_length
from star_keras.outer_loop.progress import Progress
from star_keras.outer_loop.session import Session
from star_keras.outer_loop.training_set import TrainingSet
from star_keras.storage.run_directory import RunDirectory
from star_keras.training.checks import (
    check_batch,
    check_compiled,
    check_finite,
    check_learning_rate,
)
from star_keras.training.dataset import training_batches, training_dataset
from star_keras.training.reference_scorer import ReferenceScorer
from star_keras.training.stored_examples import example_lengths
from star_keras.utils.errors import invalid


class TrainingPhase:
    """The training of the base model on a training set. Keras runs the steps.

    Args:
        model: A compiled `keras_hub.models.CausalLM`.
        run: The run directory; must be open when the phase runs.
        config: All settings.
        session: Holds the base model and the notice of SIGTERM.
        progress: Shows the steps.
        packed: Whether a row holds several examples.

    Raises:
        ValueError: if a batch is larger than the memory, or the model accumulates
            gradients over a number of parts that does not divide it.

    Attributes:
        iteration: The iteration, 0 before the first.
        training_set: Its training set.
    """

    def __init__(
        self,
        model,
        run: RunDirectory,
        config: StarConfig,
        session: Session,
        progress: Progress,
        *,
        packed: bool,
    ):
        self.iteration = 0
        self.training_set = TrainingSet()
        self._model, self._run, self._config = model, run, config
        self._session, self._progress = session, progress
        self._packed = packed
        self._first_step = self._saved_step = 0
        self._reached_end = self._is_read = False
        self._start = 0.0
        self._bar, self._shown_step = None, 0
        check_batch(model, config.training)
        # Pairs are compared with the model that the training starts from.
        self._scorer = ReferenceScorer(
            model,
            batch_size=config.training.batch_size,
            sequence_length=config.training.sequence_length,
            pad_id=model.preprocessor.tokenizer.pad_token_id,
        )

    def check_fit(self, steps_per_epoch: int | None):
        """Check the arguments of `fit` and of the last `compile`.

        Raises:
            ValueError: if `steps_per_epoch` is not `None`; see `check_compiled` and the
                class.
        """
        if steps_per_epoch is not None:
            rule = "`None`: the schedule decides"
            raise invalid("steps_per_epoch", rule, steps_per_epoch)
        check_compiled(self._model)
        check_batch(self._model, self._config.training)

    @property
    def _paired(self):
        return getattr(self._model, "objective", None) == "rpo"

    @property
    def dataset(self):
        """An endless `tf.data.Dataset` of the training set.

        Its elements are `(x, y, sample_weight)` of shape `(batch_size,
        sequence_length)`, int32, int32 and float32, see `make_row`.
        """

        def batches(**arguments):
            self._is_read = True
            return training_batches(
                self.training_set.examples,
                pad_id=self._model.preprocessor.tokenizer.pad_token_id,
                seed=(self._config.run.seed, self.iteration),
                start=self._first_step,
                **arguments,
            )

        dataset = training_dataset(
            batches,
            batch_size=self._config.training.batch_size,
            sequence_length=self._config.training.sequence_length,
            packed=self._packed,
            paired=self._paired,
        )
        self._session.datasets.add(dataset)
        return dataset

    def learning_rate(self) -> dict[str, float]:
        """The constant learning rate of the model as a metric; else empty."""
        variable = self._session.base.learning_rate
        return {} if variable is None else {"learning_rate": float(variable.value)}

    def begin(self, iteration: int, training_set: TrainingSet, show_bar: bool):
        """Restore the base model, or the last state of an interrupted training.

        With the objective `"rpo"` the base model is the reference of the pairs.

        Args:
            iteration: The iteration, from 1.
            training_set: Its training set.
            show_bar: Whether to show the steps.

        Raises:
            ValueError: if an example is longer than the model's longest sequence, or
                the saved state is damaged or of another model.
        """
        self._check_lengths(training_set)
        self.iteration, self.training_set = iteration, training_set
        self._session.base.restart()
        if self._paired and len(training_set.examples):
            training_set.examples.references = self._scorer.score(training_set.examples)
        self._session.set_learning_rate(iteration)
        self._first_step = self._saved_step = self._run.checkpoints.restore_training(
            iteration, self._session.base.training_state()
        )
        self._reached_end = self._is_read = False
        self._bar = None
        self._start = time.monotonic()
        if show_bar:
            name = f"iteration {iteration}, train"
            self._bar = self._progress.start(name, "steps")
            self._shown_step = self._first_step

    def _check_lengths(self, training_set):
        # (Rows may be longer: positions start anew in each example.)
        limit = max_sequence_length(self._model)
        longest = max(example_lengths(training_set.examples), default=0)
        if limit is not None and longest > limit:
            raise ValueError(
                f"A training example has {longest} tokens, more than the {limit} of "
                "the model (`max_sequence_length`). Lower `max_new_tokens`, leave out "
                "the few-shot prompt (`few_shot_train=False`), or use a model for "
                "longer sequences, in a new run_dir."
            )

    def begin_step(self, batch: int) -> bool:
        """Save a checkpoint if one is due.

        Args:
            batch: Number of the step within this `fit`, from 0.

        Returns:
            Whether it is the last step.

        Raises:
            Preempted: after SIGTERM or Ctrl-C.
            ValueError: if another callback has set a learning rate that is negative or
                not finite.
            FloatingPointError: if a weight is not finite when a checkpoint is due.
            OSError: if a checkpoint cannot be written.
        """
        if not batch:
            check_learning_rate(self._model)
        step = self._first_step + batch
        if self._session.is_preempted():
            self._session.end_preempted(lambda: self._save(step))
        if step - self._saved_step >= self._config.run.checkpoint_steps:
            self._save(step)
        self._update_bar(step)
        self._reached_end = step + 1 >= self.training_set.steps
        return self._reached_end

    def end(self, logs: dict) -> bool:
        """Save the trained weights in the background, see `RunDirectory`.

        Args:
            logs: Metrics of the training.

        Returns:
            Whether the training is finished. An unfinished training is not saved
            here; the next `fit` continues it from its last checkpoint.

        Raises:
            ValueError: if `fit` has another dataset.
            FloatingPointError: if the loss or a weight is not finite.
            OSError: if a file cannot be written.
        """
        if not self._reached_end:
            return False
        if not self._is_read:
            raise invalid("x", "the `dataset` of this callback", "another dataset")
        if not len(self.training_set.examples):
            self._session.base.restore()  # weight decay needs no gradients
        self._check_finite(self.training_set.steps, logs.get("loss"))
        self._update_bar(self.training_set.steps)
        if self._bar is not None:
            self._bar.end()
            self._bar = None
        seconds = time.monotonic() - self._start
        metrics = {**logs, **self.learning_rate(), "training_seconds": seconds}
        keep = self._config.run.keep_weights
        variables = self._model.variables
        self._run.finish_training(self.iteration, variables, metrics, keep)
        return True

    def _check_finite(self, step, loss=None):
        """Remove the checkpoints of a training whose loss or weights are not finite."""
        place = f"step {step} of iteration {self.iteration}"
        saved = "Nothing of this iteration's training was saved."
        try:
            check_finite(self._model, place, saved, loss)
        except FloatingPointError:
            self._run.checkpoints.prune_training()
            raise

    def _save(self, step):
        self._model.jax_state_sync()
        self._check_finite(step)
        state = self._session.base.training_state()
        self._run.checkpoints.save_training(self.iteration, step, state)
        self._saved_step = step

    def _update_bar(self, step):
        if self._bar is not None:
            tokens = self.training_set.tokens_per_step
            new_steps = step - self._shown_step
            self._bar.update(step, self.training_set.steps, tokens * new_steps)
            self._shown_step = step
