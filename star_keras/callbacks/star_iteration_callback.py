"""The outer loop of STaR as a Keras callback: one epoch is one iteration."""

import dataclasses
import itertools
import json
import math
import random
import re
import sys
import time
import zlib

import keras
import numpy as np

from star_keras import plots, prompts
from star_keras.callbacks.run_directory import RunDirectory
from star_keras.callbacks.step_schedules import ExponentialSteps
from star_keras.callbacks.token_inputs import feed_token_ids
from star_keras.distribution import processes
from star_keras.distribution.preemption import Preempted, PreemptionNotice
from star_keras.grading import accuracy_by_class
from star_keras.packing import (
    pack,
    tokenize_examples,
    training_batches,
    training_dataset,
)
from star_keras.rationales import (
    Rationale,
    filter_and_weigh,
    flexible_accuracy,
    shares_unread,
)
from star_keras.sampling import attempt, build_prompt
from star_keras.tasks import Task


class StarIterationCallback(keras.callbacks.Callback):
    """Teaches a model to reason from questions and answers alone.

    Before each epoch the model writes a rationale for every training problem.
    Those that reach the right answer are kept; for the others the answer is
    shown as a hint, and what now succeeds is kept without the hint
    (rationalization). The epoch then trains the *base* model on what was
    kept, with a fresh optimizer, and ends with an evaluation on held-out
    problems.

    The epoch's logs get `train_accuracy`, `rationalization_accuracy` and
    `eval_accuracy`, each with `/<class>` for each problem class too,
    `num_rationales` and more (NaN where nothing was tried), so put this
    callback first: History, CSVLogger and TensorBoard then have them too. An
    early stop by another callback before an epoch's last step leaves the
    iteration unfinished.

    `run_dir` holds all that was sampled, the figures, the weights of the last
    iterations and plots, see `RunDirectory`. The same call on the same
    directory goes on where a killed run was, in the middle of any phase, and
    ends as if nothing had been: iterations that are trained are not run again
    (`initial_epoch`), finished samples are not sampled again, and training goes
    on from its last checkpoint. A SIGTERM ends the step or the batch under way,
    saves, and leaves the program with the exit code 75 (`Preempted`).

    Args:
        model: The base model, a compiled `keras_hub.models.CausalLM` with a
            preprocessor. Its loss must be a mean over the sample weights,
            see `GPTJCausalLM.compile`.
        task: A `star_keras.tasks.Task`.
        sampler: A `star_keras.sampling.Sampler` of `model`.
        run_dir: Directory of this run.
        eval_sampler: Sampler for held-out problems. Defaults to `sampler`.
        steps: Callable `(iteration, steps_per_pass) -> steps`. Defaults to
            `ExponentialSteps()`, 40 steps and 20% more each iteration.
        batch_size: int. Rows a training step. Defaults to `8`.
        row_length: int. Tokens a row. Defaults to `1024`. Models that take
            `segment_ids` get several examples packed into a row.
        n_train_samples: optional int. Training problems drawn for each
            iteration, evenly over the problem classes. Defaults to all.
        n_eval_samples: optional int. Held-out problems to evaluate on.
            Defaults to all.
        rationalize: bool. Whether failed problems are tried again with a
            hint. Defaults to `True`.
        p_rationalization: float. Share of the failed problems that are.
            Defaults to `1.0`.
        p_show_hint_save: float. Share of the rationalizations that are
            trained on with their hint. Defaults to `0.0`.
        few_shot: bool. Whether prompts begin with the task's worked examples.
            Defaults to `True`.
        few_shot_train: bool. Whether training rows do too. Defaults to
            `False`.
        direct: bool. Trains on the answers alone, without sampling
            rationales: a baseline. Defaults to `False`.
        copy_n: int. What the last `copy_n` iterations kept is trained on
            again. Defaults to `0`.
        samples_per_problem: int. Completions sampled for each problem, with
            and without a hint; more than one need a temperature. Defaults to
            `1`.
        drop_duplicates: bool. Whether only the first of a problem's rationales
            that are the same (`Task.rationale_key`) is trained on. Defaults
            to `False`.
        max_rationales_per_problem: optional int. How many of a problem's
            rationales are trained on. Defaults to all.
        weigh_by_problem: bool. Whether a problem's rationales weigh 1
            together instead of 1 each. Defaults to `False`.
        mastered_after: int. A problem is mastered when the last so many
            iterations that sampled it got only correct rationales, without a
            hint; `0` for never. When it is not sampled it is trained on with
            the last of those. Defaults to `0`.
        p_mastered: float. Share of the mastered problems that are sampled
            all the same. Defaults to `0.25`.
        check_working: bool. Whether rationales need right steps as well as
            the right answer, for tasks that can tell. The paper looks at the
            answer only. Defaults to `False`.
        on_empty: `"continue"` or `"stop"`. What to do after an iteration that
            keeps nothing; its model is the base model. Defaults to
            `"continue"`.
        skip_eval: bool. Defaults to `False`.
        keep_weights: int. Iterations whose weights stay on disk. Defaults to
            `1`.
        checkpoint_steps: int. Training steps between two checkpoints within
            an iteration, of which the last two stay on disk. Defaults to `500`.
        seed: int. Decides draws and orders; the sampler has its own. A model
            with dropout also needs `keras.utils.set_random_seed`.

    Raises:
        ValueError: if an argument is invalid, the task has no problems, a
            problem has no answer, or `run_dir` is of another configuration.

    Example:
    ```python
    star = StarIterationCallback(
        model,
        task=tasks.get("arithmetic"),
        sampler=get_sampler(model, max_new_tokens=128),
        run_dir="runs/addition",
        row_length=256,
    )
    model.fit(star.dataset, epochs=10, callbacks=[star])
    ```

    Reference:
        [STaR: Bootstrapping Reasoning With Reasoning](https://arxiv.org/abs/2203.14465),
        algorithm 1.
    """

    def __init__(
        self,
        model,
        task,
        sampler,
        run_dir,
        *,
        eval_sampler=None,
        steps=None,
        batch_size=8,
        row_length=1024,
        n_train_samples=None,
        n_eval_samples=None,
        rationalize=True,
        p_rationalization=1.0,
        p_show_hint_save=0.0,
        few_shot=True,
        few_shot_train=False,
        direct=False,
        copy_n=0,
        samples_per_problem=1,
        drop_duplicates=False,
        max_rationales_per_problem=None,
        weigh_by_problem=False,
        mastered_after=0,
        p_mastered=0.25,
        check_working=False,
        on_empty="continue",
        skip_eval=False,
        keep_weights=1,
        checkpoint_steps=500,
        seed=0,
    ):
        super().__init__()
        for name, value in (
            ("p_rationalization", p_rationalization),
            ("p_show_hint_save", p_show_hint_save),
            ("p_mastered", p_mastered),
        ):
            if not 0 <= value <= 1:
                _raise_invalid(name, "a share between 0 and 1", value)
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("row_length", row_length, 1),
            ("copy_n", copy_n, 0),
            ("keep_weights", keep_weights, 1),
            ("checkpoint_steps", checkpoint_steps, 1),
            ("samples_per_problem", samples_per_problem, 1),
            ("mastered_after", mastered_after, 0),
        ):
            if value < least:
                _raise_invalid(name, f"at least {least}", value)
        for name, value in (
            ("n_train_samples", n_train_samples),
            ("n_eval_samples", n_eval_samples),
            ("max_rationales_per_problem", max_rationales_per_problem),
        ):
            if value is not None and value < 1:
                _raise_invalid(name, "`None` or at least 1", value)
        if on_empty not in ("continue", "stop"):
            _raise_invalid("on_empty", 'one of "continue", "stop"', on_empty)
        if samples_per_problem > 1 and sampler.get_config().get("temperature") == 0:
            raise ValueError(
                "Invalid value for argument `samples_per_problem`. Expected 1 with "
                "a greedy sampler, whose samples are all the same. Received: "
                f"samples_per_problem={samples_per_problem}. Give the sampler a "
                "temperature."
            )
        self.task = task
        self.sampler = sampler
        self.eval_sampler = eval_sampler or sampler
        self.steps = steps or ExponentialSteps()
        self.batch_size = batch_size
        self.row_length = row_length
        self.n_train_samples = n_train_samples
        self.n_eval_samples = n_eval_samples
        self.rationalize = rationalize and not direct
        self.p_rationalization = p_rationalization
        self.p_show_hint_save = p_show_hint_save
        self.few_shot = few_shot
        self.few_shot_train = few_shot_train
        self.direct = direct
        self.copy_n = copy_n
        self.samples_per_problem = samples_per_problem
        self.drop_duplicates = drop_duplicates
        self.max_rationales_per_problem = max_rationales_per_problem
        self.weigh_by_problem = weigh_by_problem
        self.mastered_after = mastered_after
        self.p_mastered = p_mastered
        self.check_working = check_working
        self.on_empty = on_empty
        self.skip_eval = skip_eval
        self.keep_weights = keep_weights
        self.checkpoint_steps = checkpoint_steps
        self.seed = seed

        self._language_model = model
        self._preprocessor = _preprocessor_of(model)
        self._packed = "segment_ids" in model.input
        feed_token_ids(model)
        self._problems = {
            split: _checked_problems(task, split)
            for split in (("train",) if skip_eval else ("train", "eval"))
        }
        self._by_id = {problem.id: problem for problem in self._problems["train"]}
        self._base_weights = [processes.HostCopy(v.value) for v in model.variables]
        self._optimizer = None
        self._preemption = PreemptionNotice()
        self._examples = []
        self._run = RunDirectory(run_dir, self._config())
        self.run_dir = self._run.path

    # === Run directory ===

    def _config(self):
        names = (
            *("batch_size", "row_length", "n_train_samples", "n_eval_samples"),
            *("rationalize", "p_rationalization", "p_show_hint_save"),
            *("few_shot", "few_shot_train", "direct", "copy_n", "check_working"),
            *("samples_per_problem", "drop_duplicates", "max_rationales_per_problem"),
            *("weigh_by_problem", "mastered_after", "p_mastered"),
            *("skip_eval", "seed"),
        )
        shown = self.few_shot or self.few_shot_train
        texts = [
            {
                split: [dataclasses.asdict(problem) for problem in problems]
                for split, problems in self._problems.items()
            },
            [self._few_shot_prefix(hint, shown) for hint in (False, True)],
            list(self.task.stop),
        ]
        model = self._language_model
        weights = 0
        for variable in model.weights:
            value = np.ascontiguousarray(processes.gather(variable.value))
            weights = zlib.crc32(value.view("uint8"), weights)
        optimizer = keras.optimizers.serialize(model.optimizer)
        optimizer["config"].pop("name", None)
        return {
            **{name: getattr(self, name) for name in names},
            "task": self.task.name,
            # A function's address is of this process alone.
            "steps": re.sub(r" at 0x[0-9a-f]+", "", repr(self.steps)),
            "optimizer": optimizer,
            "z_loss": getattr(model, "_z_loss", 0.0),
            "dtype": model.dtype_policy.name,
            "sampler": self.sampler.get_config(),
            "eval_sampler": self.eval_sampler.get_config(),
            "problems_crc32": zlib.crc32(json.dumps(texts).encode()),
            "base_weights_crc32": weights,
        }

    @property
    def initial_epoch(self):
        """Iterations that are trained in `run_dir`; pass it to `fit`."""
        return self._run.trained

    @property
    def metrics(self):
        """Figures of the finished iterations, a dict each."""
        return self._run.metrics

    def rewind(self, iteration):
        """Forget iterations from this one on, to run them again.

        Their samples, weights and figures move to `run_dir/discarded-<n>/`.

        Args:
            iteration: int. The first iteration to run again. The weights of
                the one before it must still be there, see `keep_weights`.

        Raises:
            ValueError: if the iteration was not reached, or those weights are
                gone.
        """
        self._run.rewind(iteration)
        self._weights_iteration = None
        self._restore_base()

    # === Data ===

    @property
    def dataset(self):
        """An endless `tf.data.Dataset` of what the current iteration kept.

        Its elements are `(x, y, sample_weight)`, see
        `star_keras.packing.make_row`, of shape `(batch_size, row_length)`. An
        epoch ends after the steps of the schedule, and the next one opens the
        dataset anew.
        """
        return training_dataset(
            self._training_batches,
            batch_size=self.batch_size,
            row_length=self.row_length,
            packed=self._packed,
        )

    def _training_batches(self):
        batches = training_batches(
            self._examples,
            batch_size=self.batch_size,
            row_length=self.row_length,
            pad_id=self._preprocessor.tokenizer.pad_token_id,
            seed=(self.seed, self._iteration),
            packed=self._packed,
        )
        return itertools.islice(batches, self._first_step, None)

    # === Hooks ===

    def on_train_begin(self, logs=None):
        if self.model is not self._language_model:
            raise ValueError(
                "StarIterationCallback was made for another model than the one "
                "that is fitted. Pass the same model to both."
            )
        _check_loss(self.model)
        if (self.params or {}).get("steps") is not None:
            raise ValueError(
                "Invalid value for argument `steps_per_epoch` of fit. Expected "
                "`None`: the schedule `steps` decides. Received: steps_per_epoch="
                f"{self.params['steps']}. Leave it out."
            )
        if self._optimizer is not self.model.optimizer:
            self._optimizer = self.model.optimizer
            self._fresh_optimizer = _fresh_values(self.model.optimizer)
        self._run.lock()
        self._preemption.start()
        done = self.initial_epoch
        if done and self._weights_iteration != done:
            self._run.restore_weights(done, self.model.variables)
        self._weights_iteration = done
        # Of the base model, or one that a kill has cut short.
        self._evaluate(done)
        if self.on_empty == "stop" and (
            self._run.figures(done).get("num_examples") == 0
        ):
            raise ValueError(
                f"Iteration {done} of {self.run_dir} kept no rationale, and the run "
                "was to stop then. Pass on_empty='continue' to go on."
            )

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != self.initial_epoch:
            raise ValueError(
                f"Epoch {epoch} would be iteration {epoch + 1}, but "
                f"{self.initial_epoch} iterations of {self.run_dir} are "
                f"finished. Pass initial_epoch={self.initial_epoch} to fit."
            )
        iteration = self._iteration = epoch + 1
        start = time.monotonic()

        # === Sample ===
        problems = self._draw_problems(iteration)
        mastered = self._mastered(iteration, problems)
        problems = [p for p in problems if p.id not in mastered]
        if self.direct:
            rationales = [self._known_answer(iteration, p) for p in problems]
            figures = {}
        else:
            rationales = self._attempt(iteration, "rationale", problems)
            figures = self._accuracy("train_accuracy", rationales)
        self._run.finish(iteration, "sample", figures)

        # === Rationalize ===
        if self.rationalize:
            failed = self._draw_failed(iteration, problems, rationales)
            hinted = self._attempt(iteration, "rationalization", failed)
            figures = self._accuracy("rationalization_accuracy", hinted)
            self._run.finish(iteration, "rationalize", figures)
            rationales = rationales + hinted

        # === Filter and pack ===
        rationales = filter_and_weigh(
            rationales,
            key=self.task.rationale_key if self.drop_duplicates else None,
            max_per_problem=self.max_rationales_per_problem,
            weigh_by_problem=self.weigh_by_problem,
        )
        # In this order however often the sampling was cut short.
        self._run.samples.replace(iteration, rationales)
        figures = {} if self.direct else shares_unread(rationales)
        kept = [r for r in rationales if r.weight]
        kept += [r for group in mastered.values() for r in group if r.weight]
        figures["num_rationales"] = len(kept)
        tried = len(problems) + len(mastered)
        for figure, hinted in (("share_kept", False), ("share_rationalized", True)):
            solved = {
                r.problem
                for r in kept
                if (r.prompt_kind == "rationalization") == hinted
            }
            figures[figure] = len(solved) / tried
        if self.mastered_after:
            figures["share_mastered"] = len(mastered) / tried
        for earlier in range(max(1, iteration - self.copy_n), iteration):
            kept += [r for r in self._run.samples.load(earlier) if r.weight]
        self._examples = self._tokenize(kept)
        self._steps = self._num_steps(iteration)
        figures["num_examples"] = len(self._examples)
        figures["steps"] = self._steps
        figures["sampling_seconds"] = time.monotonic() - start
        self._run.finish(iteration, "pack", figures)
        if not kept:
            print(
                f"\nIteration {iteration} kept no rationale: its model is the "
                f"base model. {'Stopping' if self.on_empty == 'stop' else 'Going on'}"
                f" (on_empty={self.on_empty!r})."
            )

        # === Train ===
        self._restart()
        self._first_step = self._run.restore_training(iteration, self._state())
        self._saved_step = self._first_step
        self._last_step_begun = False
        self._train_start = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        step = self._first_step + batch
        if self._preemption.received():
            self._save_training(step)
            self._end_preempted()
        if step - self._saved_step >= self.checkpoint_steps:
            self._save_training(step)
        if step + self.model.steps_per_execution >= self._steps:
            # Ends the epoch after this step; taken back in on_epoch_end.
            self._last_step_begun = True
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if not self._last_step_begun:
            return  # Another callback has stopped this epoch before its end.
        iteration = self._iteration
        trained = {
            **(logs or {}),
            "training_seconds": time.monotonic() - self._train_start,
        }
        loss = trained.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss of iteration {iteration} is {loss}. Nothing of "
                "this iteration's training was saved. Use a lower learning "
                "rate, a global_clipnorm or a wider dtype, in a new run_dir."
            )
        self.model.stop_training = self.on_empty == "stop" and not self._examples
        self._run.save_weights(iteration, self.model.variables)
        self._run.finish(iteration, "train", trained)
        self._run.forget_weights(self.keep_weights)
        self._run.forget_training()
        self._weights_iteration = iteration

        # === Evaluate ===
        self._evaluate(iteration)
        if logs is not None:
            logs.update(self._run.figures(iteration))

    def on_train_end(self, logs=None):
        self._preemption.stop()
        self._run.unlock()

    # === The loop's parts ===

    def _draw_problems(self, iteration):
        """This iteration's training problems, as even over classes as can be."""
        problems = self._problems["train"]
        if self.n_train_samples is None or self.n_train_samples >= len(problems):
            return problems
        classes = {}
        for problem in problems:
            classes.setdefault(problem.problem_class, []).append(problem)
        draw = self._random(iteration, "draw")
        drawn = []
        # The smallest first: what a class lacks, the larger ones make up for.
        for left, group in zip(
            range(len(classes), 0, -1),
            sorted(classes.values(), key=len),
            strict=True,
        ):
            share = -(-(self.n_train_samples - len(drawn)) // left)
            drawn += draw.sample(group, min(share, len(group)))
        return drawn

    def _draw_failed(self, iteration, problems, rationales):
        solved = {r.problem for r in rationales if r.verdict == "correct"}
        draw = self._random(iteration, "failed")
        return [
            problem
            for problem in problems
            # One number a problem, used or not, so that draws do not shift.
            if draw.random() < self.p_rationalization and problem.id not in solved
        ]

    def _mastered(self, iteration, problems):
        """What stands for the mastered problems that are not sampled.

        Returns:
            Dict from a problem's id to its rationales of the last iteration
            that sampled it.
        """
        if not self.mastered_after:
            return {}
        history = {}
        for earlier in range(1, iteration):
            for rationale in self._run.samples.load(earlier):
                if rationale.prompt_kind == "rationale":
                    attempts = history.setdefault(rationale.problem, {})
                    attempts.setdefault(earlier, []).append(rationale)
        draw = self._random(iteration, "mastered")
        mastered = {}
        for problem in problems:
            attempts = list(history.get(problem.id, {}).values())
            last = attempts[-self.mastered_after :]
            if draw.random() >= self.p_mastered and (
                len(last) == self.mastered_after
                and all(r.verdict == "correct" for group in last for r in group)
            ):
                mastered[problem.id] = last[-1]
        return mastered

    def _attempt(self, iteration, kind, problems):
        """Sample and grade completions for each problem.

        Goes on with what the store already has of this iteration.
        """
        evaluation = kind == "evaluation"
        count = 1 if evaluation else self.samples_per_problem
        samples = [(problem, n) for problem in problems for n in range(count)]
        done = {r.key: r for r in self._run.samples.load(iteration)}
        processes.sync(f"the samples of iteration {iteration} are read: {kind}")
        missing = [(p, n) for p, n in samples if (kind, p.id, n) not in done]
        bar = self._progress_bar(kind, len(samples))
        bar(len(samples) - len(missing))
        for rationales in attempt(
            self.task,
            missing,
            self.eval_sampler if evaluation else self.sampler,
            kind=kind,
            prefix=self._few_shot_prefix(kind == "rationalization", self.few_shot),
            iteration=iteration,
            check_working=self.check_working and not evaluation,
        ):
            rationales = [self._with_hint_choice(r) for r in rationales]
            self._run.samples.append(iteration, rationales)
            done |= {r.key: r for r in rationales}
            bar(len(rationales))
            if self._preemption.received():
                self._end_preempted()
        return [done[kind, p.id, n] for p, n in samples]

    def _with_hint_choice(self, rationale):
        if rationale.prompt_kind != "rationalization" or not self.p_show_hint_save:
            return rationale
        draw = self._random(rationale.iteration, rationale.problem).random()
        return dataclasses.replace(rationale, show_hint=draw < self.p_show_hint_save)

    def _known_answer(self, iteration, problem):
        return Rationale(
            iteration=iteration,
            problem=problem.id,
            problem_class=problem.problem_class,
            sample=0,
            prompt_kind="direct",
            completion=self.task.format_response("", problem),
            finish_reason="stop",
            answer=problem.answer,
            verdict="correct",
            weight=1.0,
        )

    def _few_shot_prefix(self, hint, wanted):
        if not wanted:
            return ""
        return prompts.few_shot_prompt(self.task, hint=hint, direct=self.direct)

    def _tokenize(self, rationales):
        prefixes = {
            hint: self._few_shot_prefix(hint, self.few_shot_train)
            for hint in (False, True)
        }
        texts = []
        for rationale in rationales:
            prompt = build_prompt(
                self.task,
                self._by_id[rationale.problem],
                prefix=prefixes[rationale.show_hint],
                hint=rationale.show_hint,
            )
            # A stop string after a blank line leaves that line behind.
            response = rationale.completion.rstrip()
            texts.append((prompt, response, rationale.weight))
        examples = tokenize_examples(self._preprocessor, texts)
        for rationale, example in zip(rationales, examples, strict=True):
            if len(example) > self.row_length:
                raise ValueError(
                    f"The training example of problem {rationale.problem!r} has "
                    f"{len(example)} tokens, more than row_length="
                    f"{self.row_length}. Use longer rows, in a new run_dir."
                )
        return examples

    def _num_steps(self, iteration):
        if not self._examples:
            return 1
        lengths = [len(example) for example in self._examples]
        rows = len(pack(lengths, self.row_length) if self._packed else lengths)
        steps = self.steps(iteration, math.ceil(rows / self.batch_size))
        if steps < 1:
            _raise_invalid("steps", "a schedule of at least one step", steps)
        return steps

    def _restart(self):
        """Put the base weights and the optimizer's first state back."""
        self._restore_base()
        for variable, value in self._fresh_optimizer:
            variable.assign(keras.ops.broadcast_to(value, variable.shape))

    def _restore_base(self):
        for variable, value in zip(
            self._language_model.variables, self._base_weights, strict=True
        ):
            variable.assign(value.to_devices())

    def _state(self):
        """What a training changes."""
        return [
            *self.model.variables,
            *self.model.optimizer.variables,
            *self.model.metrics_variables,
        ]

    def _save_training(self, step):
        self.model.jax_state_sync()
        self._run.save_training(self._iteration, step, self._state())
        self._saved_step = step

    def _end_preempted(self):
        self._run.training.wait()
        self._preemption.stop()
        self._run.unlock()
        print(
            f"SIGTERM: {self.run_dir} holds all so far; the same command goes on.",
            file=sys.stderr,
        )
        raise Preempted

    def _evaluate(self, iteration):
        if self._run.is_done(iteration, "evaluate") or (
            self.skip_eval and not iteration
        ):
            return
        figures = {}
        if not self.skip_eval:
            start = time.monotonic()
            problems = self._problems["eval"]
            if self.n_eval_samples is not None and self.n_eval_samples < len(problems):
                problems = self._random(0, "eval").sample(problems, self.n_eval_samples)
            rationales = self._attempt(iteration, "evaluation", problems)
            figures = self._accuracy("eval_accuracy", rationales, "eval")
            for name, share in shares_unread(rationales).items():
                figures[f"eval_{name}"] = share
            figures["eval_seconds"] = time.monotonic() - start
            others = [
                r
                for r in self._run.samples.load(iteration)
                if r.prompt_kind != "evaluation"
            ]
            self._run.samples.replace(iteration, others + rationales)
        self._run.finish(iteration, "evaluate", figures)
        if processes.is_writer():
            plots.save_plots(self.metrics, self.run_dir)
        # Whatever process reads `run_dir` now finds it whole.
        processes.sync(f"iteration {iteration} is written")

    # === Small things ===

    _iteration = 0
    _weights_iteration = None
    _first_step = 0

    def _accuracy(self, name, rationales, split="train"):
        figures = accuracy_by_class(
            [(r.problem_class, r.verdict) for r in rationales],
            name,
            classes={problem.problem_class for problem in self._problems[split]},
        )
        if type(self.task).extract_answer_flexible is not Task.extract_answer_flexible:
            figures[f"{name}_flexible"] = flexible_accuracy(
                self.task, self._problems[split], rationales
            )
        return figures

    def _random(self, iteration, purpose):
        return random.Random(f"{self.seed} {iteration} {purpose}")

    def _progress_bar(self, kind, total):
        if (self.params or {}).get("verbose") not in (1, "auto") or not total:
            return lambda done: None
        print(f"{kind}: {total} problems")
        bar = keras.utils.Progbar(total, unit_name="problem")
        return lambda done: bar.add(done) if done else None


def _raise_invalid(name, rule, value):
    raise ValueError(
        f"Invalid value for argument `{name}`. Expected {rule}. "
        f"Received: {name}={value!r}."
    )


def _preprocessor_of(model):
    if getattr(model, "preprocessor", None) is None:
        raise ValueError(
            "Invalid value for argument `model`. Expected a model with a "
            "preprocessor, whose tokenizer the rationales are made with. "
            "Received: model.preprocessor=None."
        )
    return model.preprocessor


def _checked_problems(task, split):
    problems = list(task.problems(split))
    if not problems:
        raise ValueError(f"The task {task.name!r} has no problems in {split!r}.")
    ids = set()
    for problem in problems:
        if not problem.answer.strip():
            raise ValueError(
                f"Problem {problem.id!r} of the task {task.name!r} has no answer. "
                "Give it one, or leave it out."
            )
        if problem.id in ids:
            raise ValueError(
                f"The task {task.name!r} has the id {problem.id!r} twice in "
                f"{split!r}. Ids must be unique."
            )
        ids.add(problem.id)
    return problems


def _check_loss(model):
    reduction = getattr(model.loss, "reduction", None)
    if reduction != "mean_with_sample_weight":
        raise ValueError(
            "The model's loss must be a mean over the weights of the response "
            f"tokens, but {model.loss!r} has the reduction {reduction!r}. Compile "
            "the model with "
            "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, "
            "reduction='mean_with_sample_weight')."
        )


def _fresh_values(optimizer):
    """The optimizer's state before its first step.

    Returns:
        Pairs of a variable and its value; a scalar where the variable is
        filled with one number, as new slots are.
    """
    if int(optimizer.iterations) != 0:
        raise ValueError(
            "Every iteration starts with a fresh optimizer, but this one has "
            f"already made {int(optimizer.iterations)} steps. Compile the model "
            "with a new optimizer."
        )
    values = []
    for variable in optimizer.variables:
        lowest = keras.ops.min(variable.value)
        constant = bool(lowest == keras.ops.max(variable.value))
        value = lowest if constant else variable.value
        values.append((variable, processes.gather(value)))
    return values
