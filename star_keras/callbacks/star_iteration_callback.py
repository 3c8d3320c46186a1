"""The outer loop of STaR as a Keras callback: one epoch is one iteration."""

import keras

from star_keras.callbacks.fitting import end_epoch, further_callbacks, go_on
from star_keras.callbacks.throughput import Throughput
from star_keras.config import StarConfig
from star_keras.distribution import processes
from star_keras.models import PackedCausalLM
from star_keras.outer_loop.console_summary import (
    show_example,
    show_iteration,
    show_start,
)
from star_keras.outer_loop.iteration import OuterLoop
from star_keras.outer_loop.lengths import check_lengths
from star_keras.outer_loop.progress import Progress
from star_keras.outer_loop.session import Session
from star_keras.outer_loop.training_phase import TrainingPhase
from star_keras.sampling.get_sampler import training_and_eval_sampler
from star_keras.storage.run_directory import RunDirectory
from star_keras.training.dataset import feed_token_ids
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked


class StarIterationCallback(keras.callbacks.Callback):
    """Teaches a model to reason from questions and answers alone.

    One epoch is one iteration, see `star_keras.outer_loop.iteration.OuterLoop`.
    The model samples a rationale for every training problem, and rationales with
    the right answer are kept. Failed problems are sampled again with the answer
    as a hint, and rationales that now succeed are kept without the hint
    (rationalization). The epoch trains the *base* model on the kept rationales,
    with a fresh optimizer, and ends with an evaluation on held-out problems.

    `run_dir` holds samples, metrics, weights and plots, see `RunDirectory`. The same
    call resumes a killed run in the middle of any phase, with the result of a run that
    was never killed. SIGTERM saves and exits with code 75, Ctrl-C with code 130.

    Other callbacks may stand before or after this one. Those that read its
    metrics from an epoch's logs (`CSVLogger`, or `EarlyStopping` on `eval_accuracy`)
    must stand after it. `LearningRateScheduler` and `ReduceLROnPlateau` set the
    learning rate of the whole iteration. A callback that stops an epoch early leaves
    the iteration unfinished; the next `fit` continues it from the last checkpoint.

    Args:
        model: The base model, a compiled `keras_hub.models.CausalLM` with a
            preprocessor, see `star_keras.training.compile_model`.
        task: A `star_keras.tasks.Task`.
        run_dir: Directory of the run, local or `gs://`.
        config: A `StarConfig`. Defaults to `StarConfig()`, the paper's settings.
        sampler: A `star_keras.sampling.Sampler` in place of the configured one.
        eval_sampler: Sampler of held-out problems. Defaults to `sampler` if that
            is given, else to the configured one without temperature.
        steps: Callable `(iteration, steps_per_pass) -> steps` in place of the
            configured schedule.
        verifier: Ranks rationales for `drop_lowest`, a `keras_hub.models.CausalLM`.

    Attributes:
        config: The `StarConfig`.
        run: The `RunDirectory`.
        loop: The `OuterLoop`.
        training: The `TrainingPhase`, with the training set.

    Raises:
        ValueError: if an argument is invalid, the task has no problems, a problem
            has no answer, or a text is too long. In `fit`: see `TrainingPhase` and
            `Session.open`, or if another model is passed, or `run_dir` is damaged.
        RuntimeError: in `fit`, if another process, or another `fit`, works in
            `run_dir`.
        FloatingPointError: in `fit`, if the loss or a weight is not finite.
        Preempted: in `fit`, a `SystemExit` after SIGTERM or Ctrl-C.
        OSError: in `fit`, if a file cannot be written.

    Example:
    ```python
    compile_model(model, OptimizerConfig(learning_rate=2e-3))
    sampling = SamplingConfig(max_new_tokens=32)
    training = TrainingConfig(sequence_length=128, start_steps=4)
    config = StarConfig(sampling=sampling, training=training)
    star = StarIterationCallback(model, task, run_dir="runs/sums", config=config)
    star.fit(epochs=2)
    ```

    Reference:
        [STaR](https://arxiv.org/abs/2203.14465), algorithm 1.
    """

    def __init__(
        self,
        model,
        task,
        run_dir,
        config=None,
        *,
        sampler=None,
        eval_sampler=None,
        steps=None,
        verifier=None,
    ):
        super().__init__()
        self.config = config = StarConfig() if config is None else config
        if getattr(model, "preprocessor", None) is None:
            raise invalid("model", "a causal LM with a preprocessor", model)
        self._fitted_model = model
        self._verbose = None  # that of `star.fit`
        packed = isinstance(model, PackedCausalLM)
        self._progress = progress = Progress()
        self.run = run = RunDirectory(run_dir)
        self.run_dir = run.path
        samplers = training_and_eval_sampler(model, config, sampler, eval_sampler)
        self.loop = OuterLoop(
            task,
            model.preprocessor,
            run,
            config,
            sampler=samplers[0],
            eval_sampler=samplers[1],
            packed=packed,
            paired=getattr(model, "objective", None) == "rpo",
            verifier=verifier,
            steps=steps,
            progress=progress,
            between_batches=lambda: self._session.between_batches(),
        )
        check_lengths(self.loop, model.preprocessor)
        self._session = session = Session(model, run, self.loop, progress)
        self.training = TrainingPhase(
            model, run, config, session, progress, packed=packed
        )
        feed_token_ids(model)

    def fit(self, epochs, callbacks=(), verbose="auto"):
        """Run iterations until `epochs` are done, resuming from `run_dir`.

        The same as `model.fit(star.dataset, epochs=epochs, callbacks=[star,
        *callbacks], initial_epoch=star.initial_epoch, shuffle=False)`, with
        `Throughput`, and with bars of its own in place of those of Keras.

        Args:
            epochs: int. Iterations in all, earlier ones included.
            callbacks: Further callbacks, or one; they get this callback's metrics.
            verbose: `0` prints nothing.

        Returns:
            The `keras.callbacks.History`. For errors see the class.
        """
        epochs = checked("epochs", int, epochs, at_least=0)
        callbacks = further_callbacks(self, callbacks)
        training = self.config.training
        throughput = Throughput(training.batch_size * training.sequence_length)
        self._verbose = verbose
        try:
            return self._fitted_model.fit(
                self.dataset,
                epochs=epochs,
                initial_epoch=self.initial_epoch,
                callbacks=[throughput, self, *callbacks],
                shuffle=False,  # the dataset is shuffled already
                verbose=0,
            )
        finally:
            self._verbose = None

    @property
    def dataset(self):
        """An endless `tf.data.Dataset` of the current training set.

        Its elements are `(x, y, sample_weight)` of shape `(batch_size,
        sequence_length)`, int32, int32 and float32, see `make_row`.
        """
        return self.training.dataset

    @property
    def initial_epoch(self):
        """Number of trained iterations in `run_dir`; pass it to `model.fit`."""
        return self.run.trained

    @property
    def metrics(self):
        """Metrics of the finished iterations, a list of dicts."""
        return self.run.history

    def rewind(self, iteration):
        """Discard iterations from this one on, to run them again.

        Their samples, weights and metrics move to `run_dir/discarded-<n>/`.

        Args:
            iteration: int. The first iteration to run again. The weights of
                the one before it must still be there, see `keep_weights`.

        Raises:
            ValueError: if the iteration was not reached, or those weights are
                gone; and see the class.
        """
        self._session.rewind(checked("iteration", int, iteration, at_least=0))

    # === Hooks ===

    def on_train_begin(self, logs=None):
        params = self.params or {}
        verbose = params.get("verbose", 0) if self._verbose is None else self._verbose
        self._progress.shown = bool(verbose) and processes.is_writer()
        if self.model is not self._fitted_model:
            raise invalid("model", "the model that is fitted", self._fitted_model)
        self.training.check_fit(params.get("steps"))
        self._session.start()
        with self._session.closed_on_error():
            show_start(
                self._progress, self.loop.problems, self.loop.prompts, self.config
            )
            done = self.initial_epoch
            # The base model, or an iteration whose evaluation was cut short.
            self.loop.evaluate(done)
            if self.loop.is_over(done) and params.get("epochs", 0) > done:
                rule = f"'continue' after iteration {done}, which kept no rationale"
                raise invalid("on_empty", rule, "stop")
            if not done:
                show_example(self._progress, self.run, self.loop, 0)

    def on_epoch_begin(self, epoch, logs=None):
        with self._session.closed_on_error():
            done, iteration = self.initial_epoch, epoch + 1
            if epoch != done:
                rule = f"`star.initial_epoch`, the {done} iterations of {self.run_dir}"
                raise invalid("initial_epoch", rule, epoch)
            self.run.finish(iteration, "begin", self.training.learning_rate())
            show_bar = self._verbose is not None  # in `model.fit` Keras shows its own
            self.training.begin(iteration, self.loop.prepare(iteration), show_bar)

    def on_train_batch_begin(self, batch, logs=None):
        with self._session.closed_on_error():
            if self.training.begin_step(batch):
                end_epoch(self.model)

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        iteration = self.training.iteration
        with self._session.closed_on_error():
            if not self.training.end(dict(logs)):
                return  # Another callback has stopped this epoch before its end.
            go_on(self.model)
            self.loop.evaluate(iteration)
        logs.update(self.run.metrics(iteration))
        show_iteration(self._progress, self.run, iteration)
        if self.loop.is_over(iteration):
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        with self._session.closed_on_error():
            if self._session.is_preempted():
                self._session.end_preempted()
        if self.training.iteration:
            show_example(self._progress, self.run, self.loop, self.initial_epoch)
        self._session.close()
