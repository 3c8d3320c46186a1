"""One iteration of the outer loop, phase by phase.

draw -> sample -> rationalize -> select -> pack -> (Keras trains) -> evaluate
"""

import contextlib
import dataclasses
import time
import warnings

from star_keras.config import StarConfig
from star_keras.distribution import processes
from star_keras.outer_loop import plots
from star_keras.outer_loop.evaluation import evaluate
from star_keras.outer_loop.filled_rows import FilledRows
from star_keras.outer_loop.growing import check_growing, open_problems
from star_keras.outer_loop.html_report.write_report import update_report
from star_keras.outer_loop.lowest_scored import LowestScored
from star_keras.outer_loop.mastery import draw_mastered, update_mastery
from star_keras.outer_loop.pairs import check_pairs
from star_keras.outer_loop.problem_order import ordered_problems, updated_keys
from star_keras.outer_loop.problems import (
    describe_callable,
    describe_problems,
    draw_stream,
    problems_of_run,
)
from star_keras.outer_loop.progress import Progress
from star_keras.outer_loop.prompts import PromptBuilder, find_chat_template
from star_keras.outer_loop.sampling_phases import SamplingPhases
from star_keras.outer_loop.selection_phase import SelectionPhase
from star_keras.outer_loop.sources import rationale_source
from star_keras.outer_loop.step_schedules import check_schedule
from star_keras.outer_loop.training_set import TrainingSet, make_training_set
from star_keras.storage.run_directory import RunDirectory
from star_keras.utils.errors import invalid


class OuterLoop:
    """The phases of an iteration, each recorded in the run directory.

    A finished phase is read from its file. An interrupted phase continues.

    Args:
        task: The task.
        preprocessor: The preprocessor of the model, whose tokenizer is used.
        run: The run directory; must be open when a phase runs.
        config: All settings.
        sampler: Samples rationales.
        eval_sampler: Samples completions of held-out problems.
        packed: Whether a row holds several examples.
        paired: Whether to train on pairs, see `star_keras.outer_loop.pairs`.
        verifier: Ranks rationales for `drop_lowest`, a causal LM or `None`.
        steps: Callable `(iteration, steps_per_pass) -> steps` in place of the
            configured schedule, or `None`.
        progress: Shows the phases.
        between_batches: Called between batches; may end the run by an exception.

    Attributes:
        problems: The problems of each split.
        prompts: Makes the prompts of samples.
        training_prompts: Makes the prompts of training examples.
        source: Where the rationales come from.

    Raises:
        ValueError: if `steps` does not take two numbers, a split has no problems, a
            problem has no answer, an id is not unique, `sample_until_trained` is set
            together with `steps`, or `drop_lowest` without a verifier.
    """

    def __init__(
        self,
        task,
        preprocessor,
        run: RunDirectory,
        config: StarConfig,
        *,
        sampler,
        eval_sampler,
        packed: bool,
        paired: bool = False,
        verifier=None,
        steps=None,
        progress: Progress,
        between_batches=lambda: None,
    ):
        self.config, self._preprocessor = config, preprocessor
        self._run, self._samples = run, run.samples
        self.sampler, self.eval_sampler = sampler, eval_sampler
        self._packed, self._paired, self._steps = packed, paired, steps
        self._progress, self._between_batches = progress, between_batches
        if steps is not None:
            check_schedule(steps)
        if paired:
            check_pairs(config)
        if steps is not None and config.sampling.sample_until_trained:
            rule = "`None` with sample_until_trained=True, which asks the schedule"
            raise invalid("steps", rule, steps)
        self.problems = problems_of_run(task, config)
        check_growing(self.problems, config.sampling)
        train = self.problems["train"]
        self._by_id = {problem.id: problem for problem in train}
        sampling, selection = config.sampling, config.selection
        chat = find_chat_template(preprocessor, sampling.chat)
        self.prompts, self.training_prompts = (
            PromptBuilder(task, few_shot=few_shot, direct=sampling.direct, chat=chat)
            for few_shot in (sampling.few_shot, selection.few_shot_train)
        )
        self.source = rationale_source(self.prompts, train, sampler, config)
        self._lowest = LowestScored(
            verifier, self.prompts, train, sampler, run.samples, config, paired=paired
        )
        rows = FilledRows(self.training_prompts, preprocessor, config, packed=packed)
        self._sampling = SamplingPhases(
            self.prompts, self.source, train, run, config, rows, self._bar
        )
        self._selection = SelectionPhase(
            self._by_id,
            self.training_prompts,
            preprocessor,
            run,
            config,
            self._sampling.quota,
            self._lowest,
            paired=paired,
        )

    def describe(self) -> dict:
        """Groups of named values that decide the samples and the training sets."""
        return {
            **dataclasses.asdict(self.config),
            "task": describe_problems(
                self.problems, self.prompts, self.training_prompts
            ),
            "arguments": {
                "training_sampler": self.sampler.get_config(),
                "evaluation_sampler": self.eval_sampler.get_config(),
                "steps": describe_callable(self._steps),
                "verifier": self._lowest.checksum(),
            },
        }

    # === Before the training ===

    def prepare(self, iteration: int) -> TrainingSet:
        """Draw, sample, rationalize, select and pack.

        Args:
            iteration: The iteration, from 1.

        Raises:
            ValueError: if a prompt or all kept rationales are too long, or stored
                samples do not fit the run.
            OSError: if a file cannot be written.
        """
        start = time.monotonic()
        problems, mastered = self._draw_problems(iteration)
        sampled = self._sampling.sample(iteration, problems)
        self._carry_over(iteration, sampled)
        kept, examples = self._selection.select(iteration, sampled, mastered)
        return self._pack(iteration, kept, examples, start)

    def _draw_problems(self, iteration):
        """The problems to sample in their order, and the mastered ones beside them."""
        sampling, keys = self.config.sampling, {}
        if sampling.order == "adaptive":
            keys = self._samples.load_pairs(iteration - 1, "order")
        problems = open_problems(
            self.problems["train"], iteration, self._run.metrics, sampling
        )
        problems = ordered_problems(problems, iteration, self.config, keys)
        draw = self._draw(iteration, "mastered")
        mastered = draw_mastered(self._samples, iteration, problems, sampling, draw)
        return [p for p in problems if p.id not in mastered], mastered

    def _carry_over(self, iteration, sampled):
        """Write what the draws of the next iteration need of these samples."""
        if self.config.sampling.mastered_after:
            mastery = self._samples.load_pairs(iteration - 1, "mastery")
            mastery = update_mastery(mastery, iteration, sampled.samples)
            self._samples.finish_pairs(iteration, "mastery", mastery)
        if self.config.sampling.order == "adaptive":
            keys = self._samples.load_pairs(iteration - 1, "order")
            keys = updated_keys(keys, iteration, sampled.problems, *sampled.phases)
            self._samples.finish_pairs(iteration, "order", keys)

    def _pack(self, iteration, kept, examples, start):
        """Make the training set of the kept samples, whose tokens may be known."""
        training_set = make_training_set(
            iteration,
            kept,
            self._by_id,
            self.training_prompts,
            self._preprocessor,
            self.config.training,
            seed=self.config.run.seed,
            packed=self._packed,
            paired=self._paired,
            steps=self._steps,
            examples=examples,
        )
        metrics = {
            "num_examples": len(training_set.examples),
            "steps": training_set.steps if kept else 0,
            "trained_tokens": training_set.num_tokens,
            "sampling_seconds": time.monotonic() - start,
        }
        self._run.finish(iteration, "pack", metrics)
        if not kept:
            self._progress.print(
                f"iteration {iteration} kept no rationale: its model is the base model "
                f"(on_empty={self.config.run.on_empty!r})"
            )
        return training_set

    # === After the training ===

    def evaluate(self, iteration: int):
        """Evaluate on held-out problems; iteration 0 is the base model.

        No-op if the evaluation is recorded already.

        Raises:
            ValueError: if a prompt leaves no room for a completion, or stored
                samples do not fit the run.
            OSError: if a file cannot be written.
        """
        config = self.config.run
        is_skipped = config.skip_eval and not iteration
        if is_skipped or self._run.is_done(iteration, "evaluate"):
            return
        metrics = {}
        if not config.skip_eval:
            start = time.monotonic()
            problems, count = self.problems["eval"], config.n_eval_samples
            if count is not None and count < len(problems):
                problems = self._draw(0, "eval").sample(problems, count)
            with self._bar(iteration, "evaluate") as on_batch:
                found, _ = evaluate(
                    self.prompts,
                    problems,
                    self.eval_sampler,
                    iteration=iteration,
                    store=self._samples,
                    on_batch=on_batch,
                )
            metrics = {f"eval_{name}": value for name, value in found.items()}
            metrics["eval_seconds"] = time.monotonic() - start
        self._run.finish(iteration, "evaluate", metrics)
        if processes.is_writer():
            self._save_plots()
            update_report(
                self._run.path, self.problems, self.prompts, self._sampling.hints
            )
        # No process reads files of this iteration before they are complete.
        processes.sync(f"iteration {iteration} is written")

    def _save_plots(self):
        try:
            plots.save_plots(self._run.history, self._run.path)
        except Exception as error:  # like one of the report, see `update_report`
            warnings.warn(
                f"The plots of {self._run.path} were not written ({error!r}). The run "
                "goes on, and draws them again after its next iteration.",
                stacklevel=2,
            )

    def is_over(self, iteration: int) -> bool:
        """Whether the run ends here, since the iteration kept nothing."""
        is_empty = self._run.metrics(iteration).get("num_examples") == 0
        return is_empty and self.config.run.on_empty == "stop"

    # === Parts of the phases ===

    def _draw(self, iteration, purpose):
        return draw_stream(self.config.run.seed, iteration, purpose)

    @contextlib.contextmanager
    def _bar(self, iteration, phase):
        """A context with the `on_batch` of `attempt`: progress, `between_batches`."""
        name = f"iteration {iteration}" if iteration else "base model"
        with self._progress.phase(f"{name}, {phase}", "completions") as bar:

            def on_batch(batch, done, total):
                bar.update(done, total, sum(sample.num_tokens for sample in batch))
                self._between_batches()

            yield on_batch
