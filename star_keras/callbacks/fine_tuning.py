"""Plain next-token fine-tuning in a directory, from which it resumes."""

import contextlib
import functools
import math
import zlib

import keras

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
from star_keras.outer_loop.training_directory import TrainingDirectory
from star_keras.training.checks import check_batch, non_finite_weights
from star_keras.training.dataset import (
    evaluation_batches,
    feed_token_ids,
    training_batches,
    training_dataset,
)
from star_keras.training.packing import pack
from star_keras.training.stored_examples import StoredExamples
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

# Value of `model.stop_training` where this callback ends an epoch, not the fit.
_END_OF_EPOCH = object()


class FineTuning(keras.callbacks.Callback):
    """Trains a causal LM on examples, and evaluates it on held-out ones.

    An epoch is `eval_steps` training steps and an evaluation. The files in `run_dir`
    are those of `TrainingDirectory`. The same call resumes a killed training, with the
    result of one that was never killed. SIGTERM saves and exits with code 75, Ctrl-C
    with code 130.

    Args:
        model: A compiled `star_keras.models.PackedCausalLM` with a preprocessor.
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
            `val_loss`, the mean over all response tokens, and `val_perplexity`, its
            exponential.

    Raises:
        ValueError: if an argument is invalid. In `fit`: if the directory is of another
            configuration, or damaged.
        RuntimeError: in `fit`, if another process works in `run_dir`.
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
        for name, given in (("examples", examples), ("eval_examples", eval_examples)):
            if given is not None and not len(given):
                raise invalid(name, "at least one example", given)
        check_batch(model, self._training)
        self._fitted, self._examples, self._eval = model, examples, eval_examples
        self.directory = TrainingDirectory(run_dir)
        self._notice = PreemptionNotice()
        self._progress, self._bar = Progress(), None
        self._first_step = 0
        feed_token_ids(model)

    def fit(self, callbacks=(), verbose=1):
        """Train to the last step, resuming from `run_dir`.

        If the training is finished, only its weights are restored.

        Args:
            callbacks: Keras callbacks; their logs have the numbers of `metrics`. One
                that stops the training leaves it unfinished: the next `fit` goes on
                from the last checkpoint.
            verbose: `0` prints nothing.

        For errors see the class.
        """
        self._progress.shown = bool(verbose) and processes.is_writer()
        with self._opened():
            if self.directory.is_finished:
                self.directory.restore_weights(self._fitted.variables)
                return
            self._first_step = self._saved_step = self.directory.step
            self._is_restored = False
            if self._eval is not None and not self.directory.metrics:
                self._record(0, self._evaluate())
            self._bar = self._progress.start("fine-tuning", "steps")
            sizes = self._training
            self._fitted.fit(
                training_dataset(self._batches, **self._shape),
                epochs=math.ceil(self._steps / self._eval_steps),
                initial_epoch=self._first_step // self._eval_steps,
                callbacks=[
                    Throughput(sizes.batch_size * sizes.sequence_length),
                    self,
                    *(callbacks or ()),
                ],
                shuffle=False,  # the dataset is shuffled already
                verbose=0,
            )

    @contextlib.contextmanager
    def _opened(self):
        with self.directory.opened(self._describe()):
            self._notice.start()
            try:
                yield
            finally:
                self._close()

    def _close(self):
        self._progress.close()
        self._notice.stop()

    def _describe(self):
        config = serialized_optimizer(self._fitted.optimizer)
        checksum = weights_checksum(self._fitted)
        return {
            "kind": "fine-tuning",
            "steps": self._steps,
            "eval_steps": self._eval_steps,
            "seed": self._run.seed,
            **self._shape,
            "examples": _digest(self._examples),
            "eval_examples": self._eval is not None and _digest(self._eval),
            "model": description(self._fitted, checksum, config),
        }

    def _record(self, step, logs):
        line = {"step": step, **{name: float(value) for name, value in logs.items()}}
        self.directory.record(line)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in line.items())
        self._progress.print(numbers)

    # === Data ===

    @property
    def _shape(self):
        sizes = self._training
        return {
            "batch_size": sizes.batch_size,
            "sequence_length": sizes.sequence_length,
        }

    def _batches(self):
        return training_batches(
            self._examples,
            pad_id=self._fitted.preprocessor.tokenizer.pad_token_id,
            seed=(self._run.seed,),
            start=self._first_step,
            **self._shape,
        )

    def _evaluate(self):
        def batches():
            pad_id = self._fitted.preprocessor.tokenizer.pad_token_id
            return evaluation_batches(self._eval, pad_id=pad_id, **self._shape)

        sizes = self._training
        rows = len(pack(self._eval.lengths.tolist(), sizes.sequence_length))
        loss = self._fitted.evaluate(
            training_dataset(batches, **self._shape),
            steps=math.ceil(rows / sizes.batch_size),
            verbose=0,
        )
        return {"val_loss": loss, "val_perplexity": math.exp(min(loss, 700.0))}

    # === Hooks ===

    def on_epoch_begin(self, epoch, logs=None):
        if not self._is_restored:
            # Here, since Keras resets its metrics before each epoch.
            self.directory.restore(training_state(self.model))
            self._is_restored = True

    def on_train_batch_begin(self, batch, logs=None):
        step = self._first_step + batch
        if self._notice.received():
            save = functools.partial(self._save, step, wait=True)
            end_preempted(self._notice, self.directory.path, save, self._close)
        if step - self._saved_step >= self._run.checkpoint_steps:
            self._save(step)
        self._bar.update(step, self._steps)
        last = min(self._steps, (step // self._eval_steps + 1) * self._eval_steps)
        if step + 1 == last:
            self.model.stop_training = self.model.stop_training or _END_OF_EPOCH
        self._end = step + 1

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        if self.model.stop_training is not _END_OF_EPOCH:
            return  # Another callback has stopped this epoch.
        self.model.stop_training = False
        step = self._first_step = self._end
        loss = logs.get("loss", 0.0)
        if not math.isfinite(loss):
            raise self._not_finite(f"The loss before step {step} is {loss}")
        self._check_weights(step)
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        logs["learning_rate"] = float(rate)
        if self._eval is not None:
            logs.update(self._evaluate())
        self._bar.update(step, self._steps)
        self._record(step, logs)
        if step == self._steps:
            self._bar.end()
            self.directory.finish(self.model.variables)

    def _save(self, step, wait=False):
        self.model.jax_state_sync()
        self._check_weights(step)
        self.directory.save(step, training_state(self.model), wait)
        self._saved_step = step

    def _check_weights(self, step):
        named = non_finite_weights(self.model)
        if named:
            raise self._not_finite(
                f"After step {step} {len(named)} weights are not finite, e.g. "
                f"{named[0]}"
            )

    def _not_finite(self, fault):
        return FloatingPointError(
            f"{fault}. What is saved is of earlier steps. Use a lower learning rate, a "
            "global_clipnorm or a wider dtype, in a new run_dir."
        )


def _digest(examples: StoredExamples):
    """Number and check sum of examples, as JSON."""
    checksum = zlib.crc32(examples.lengths.tobytes(), examples.checksum)
    return {"number": len(examples), "crc32": checksum}
