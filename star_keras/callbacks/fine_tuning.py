"""Plain next-token fine-tuning in a directory, from which it resumes."""

import contextlib
import functools
import math

import keras

from star_keras.callbacks.fine_tuning_data import FineTuningData
from star_keras.callbacks.fitting import end_epoch, further_callbacks, go_on
from star_keras.callbacks.throughput import Throughput
from star_keras.config import RunConfig, TrainingConfig
from star_keras.distribution import processes
from star_keras.distribution.preemption import PreemptionNotice, end_preempted
from star_keras.models import PackedCausalLM
from star_keras.outer_loop.base_model import (
    description,
    serialized_optimizer,
    training_state,
    weights_checksum,
)
from star_keras.outer_loop.progress import Progress
from star_keras.storage.training_directory import TrainingDirectory
from star_keras.training.checks import (
    check_batch,
    check_compiled,
    check_finite,
    check_learning_rate,
)
from star_keras.training.dataset import feed_token_ids
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked


class FineTuning(keras.callbacks.Callback):
    """Trains a causal LM on examples, and evaluates it on held-out ones.

    An epoch is `eval_steps` training steps and an evaluation. The files in `run_dir`
    are those of `TrainingDirectory`. The same call resumes a killed training, with the
    result of one that was never killed. SIGTERM saves and exits with code 75, Ctrl-C
    with code 130. A training that another callback stops, such as `EarlyStopping`, has
    a checkpoint of its last step: the same call goes on from it, and `restore` reads
    its weights.

    Args:
        model: A compiled `star_keras.models.PackedCausalLM` with a preprocessor. Its
            loss is the default, or another mean over the weights of the tokens.
        examples: `StoredExamples` to train on, each of at most `sequence_length`
            tokens.
        run_dir: Directory of the training, local or `gs://`.
        steps: int. Training steps in all.
        eval_examples: optional `StoredExamples` to evaluate on.
        eval_steps: optional int. Steps of an epoch. Defaults to `steps`.
        training: optional `TrainingConfig`; its `batch_size` and `sequence_length`
            count.
        run: optional `RunConfig`; its `seed` and `checkpoint_steps` count.

    Attributes:
        directory: The `TrainingDirectory`. Its `metrics` are a line before the first
            step and for each epoch, with `step`; `loss`, the mean over the epoch's
            response tokens; `gradient_norm`, `token_utilization` and
            `tokens_per_second`; `learning_rate`; and of the held-out examples
            `val_loss`, the mean over all response tokens (with a loss or metrics of
            your own, over batches), and `val_perplexity`, its exponential.

    Raises:
        ValueError: if an argument is invalid, the loss is no mean over the weights, or
            an example is too long. In `fit`: if the directory is of another
            configuration, or damaged. In a `model.fit` of your own: use `fit`.
        RuntimeError: in `fit`, if another process, or another `fit`, works in
            `run_dir`.
        FloatingPointError: in `fit`, if the loss or a weight is not finite.
        Preempted: in `fit`, a `SystemExit` after SIGTERM or Ctrl-C.
        OSError: in `fit`, if a file cannot be written.

    Example:
    ```python
    texts = [("Q: 1+1\\nA:", " 2", 1.0), ("Q: 2+1\\nA:", " 3", 1.0)]
    examples = StoredExamples(tokenize_stream(model.preprocessor, texts))
    compile_model(model, OptimizerConfig(learning_rate=1e-3, warmup_steps=0))
    sizes = TrainingConfig(batch_size=2, sequence_length=32)
    FineTuning(model, examples, "runs/sums", steps=2, training=sizes).fit(verbose=0)
    ```
    """

    def __init__(
        self,
        model,
        examples,
        run_dir,
        *,
        steps,
        eval_examples=None,
        eval_steps=None,
        training=None,
        run=None,
    ):
        super().__init__()
        if not isinstance(model, PackedCausalLM) or model.preprocessor is None:
            rule = "a `PackedCausalLM` with a preprocessor"
            raise invalid("model", rule, type(model).__name__)
        self._training = training or TrainingConfig()
        self._run = run or RunConfig()
        self._steps = checked("steps", int, steps, at_least=1)
        eval_steps = self._steps if eval_steps is None else eval_steps
        self._eval_steps = checked("eval_steps", int, eval_steps, at_least=1)
        check_compiled(model)
        check_batch(model, self._training)
        self._fitted = model
        self._data = FineTuningData(
            model, examples, eval_examples, sizes=self._training, seed=self._run.seed
        )
        self.directory = TrainingDirectory(run_dir)
        self._notice = PreemptionNotice()
        self._progress, self._bar = Progress(), None
        self._first_step = self._saved_step = self._end = 0
        self._is_fitting = self._is_restored = False
        # Known from the first `fit` on.
        self._base_checksum = self._optimizer = self._optimizer_config = None
        feed_token_ids(model)

    def fit(self, callbacks=(), verbose=1):
        """Train to the last step, resuming from `run_dir`.

        If the training is finished, only its weights are restored.

        Args:
            callbacks: Keras callbacks besides this one, or one; their logs have the
                numbers of `metrics`. One that stops the training leaves it unfinished:
                the next `fit` goes on from there.
            verbose: `0` prints nothing.

        For errors see the class.
        """
        callbacks = further_callbacks(self, callbacks)
        check_compiled(self._fitted)  # that of the last `compile`
        with self._opened():
            self._progress.shown = bool(verbose) and processes.is_writer()
            if self.directory.is_finished:
                self.directory.restore_weights(self._fitted.variables)
                return
            self._first_step = self._saved_step = self._end = self.directory.step
            self._is_restored, self._is_fitting = False, True
            if self._data.is_evaluated and not self.directory.metrics:
                self._record(0, self._data.evaluate())
            self._bar = self._progress.start("fine-tuning", "steps")
            sizes = self._training
            self._fitted.fit(
                self._data.dataset(lambda: self._first_step),
                epochs=math.ceil(self._steps / self._eval_steps),
                initial_epoch=self._first_step // self._eval_steps,
                callbacks=[
                    Throughput(sizes.batch_size * sizes.sequence_length),
                    self,
                    *callbacks,
                ],
                shuffle=False,  # the dataset is shuffled already
                verbose=0,
            )

    def restore(self):
        """Assign the weights of the last checkpoint, or of the finished training.

        Returns:
            int. Their step; `0`, with the model unchanged, if there are none.

        For errors see the class.
        """
        with self._opened():
            if self.directory.is_finished:
                self.directory.restore_weights(self._fitted.variables)
                return self._steps
            self._data.build()
            self.directory.restore(training_state(self._fitted))
            return self.directory.step

    @contextlib.contextmanager
    def _opened(self):
        is_first = self._base_checksum is None
        with self.directory.opened(self._describe()):
            if not is_first and self.directory.step == 0:
                self._check_base()
            self._notice.start()
            try:
                yield
            finally:
                self._close()

    def _check_base(self):
        """Check that the model is as it was before the first `fit`."""
        changed = weights_checksum(self._fitted) != self._base_checksum
        if changed or int(self._fitted.optimizer.iterations):
            raise ValueError(
                f"{self.directory.path} has no checkpoint, and the model was trained "
                "since the first `fit`. Load the base model again, and make another "
                "`FineTuning` of it."
            )

    def _close(self):
        self._is_fitting = False
        self._progress.close()
        self._notice.stop()

    def _describe(self):
        # Of the base model and of a new optimizer: both change in the training.
        optimizer = self._fitted.optimizer
        if self._base_checksum is None:
            self._base_checksum = weights_checksum(self._fitted)
        if self._optimizer is not optimizer:
            self._optimizer = optimizer
            self._optimizer_config = serialized_optimizer(optimizer)
        return {
            "kind": "fine-tuning",
            "steps": self._steps,
            "eval_steps": self._eval_steps,
            **self._data.describe(),
            "model": description(
                self._fitted, self._base_checksum, self._optimizer_config
            ),
        }

    def _record(self, step, logs):
        line = {"step": step, **{name: float(value) for name, value in logs.items()}}
        self.directory.record(line)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in line.items())
        self._progress.print(numbers)

    # === Hooks ===

    def on_train_begin(self, logs=None):
        if not self._is_fitting:
            rule = "callbacks without a `FineTuning`"
            remedy = "Call its own `fit`: `tuning.fit(callbacks=[...])`."
            raise invalid("callbacks", rule, [self], remedy)

    def on_epoch_begin(self, epoch, logs=None):
        if not self._is_restored:
            # Here, since Keras resets its metrics before each epoch.
            self.directory.restore(training_state(self.model))
            self._is_restored = True

    def on_train_batch_begin(self, batch, logs=None):
        if not batch:  # another callback may have set a rate for this epoch
            check_learning_rate(self.model)
        step = self._first_step + batch
        if self._notice.received():
            save = functools.partial(self._save, step, wait=True)
            end_preempted(self._notice, self.directory.path, save, self._close)
        if step - self._saved_step >= self._run.checkpoint_steps:
            self._save(step)
        self._bar.update(step, self._steps)
        self._end = step + 1
        if self._ends_epoch():
            end_epoch(self.model)

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        if not self._ends_epoch():
            return  # Another callback has stopped this epoch before its end.
        go_on(self.model)
        step = self._first_step = self._end
        self._check_finite(step, logs.get("loss"))
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        logs["learning_rate"] = float(rate)
        if self._data.is_evaluated:
            logs.update(self._data.evaluate())
        self._bar.update(step, self._steps)
        self._record(step, logs)
        if step == self._steps:
            self._bar.end()
            self.directory.finish(self.model.variables)

    def on_train_end(self, logs=None):
        if self._saved_step < self._end and not self.directory.is_finished:
            if self._ends_epoch():
                self.model.reset_metrics()  # as Keras does before the next epoch
            self._save(self._end)
        if self._notice.received():
            path = self.directory.path
            end_preempted(self._notice, path, lambda: None, self._close)

    def _ends_epoch(self):
        return self._end == self._steps or self._end % self._eval_steps == 0

    def _save(self, step, wait=False):
        self.model.jax_state_sync()
        self._check_finite(step)
        self.directory.save(step, training_state(self.model), wait)
        self._saved_step = step

    def _check_finite(self, step, loss=None):
        saved = "What is saved is of earlier steps."
        check_finite(self.model, f"step {step}", saved, loss)
