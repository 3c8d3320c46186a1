"""Run STaR: sample, grade, rationalize, fine-tune, and again.

    python -m experiments.star \\
        --flagfile=experiments/flagfiles/arithmetic_cpu.flags --run_dir=runs/cpu

The same command resumes a run that was interrupted.
"""

import dataclasses
import sys
from pathlib import Path

from absl import app

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import ModelSettings, ProcessSettings, load_libraries
from experiments.outputs import make_directory, save_directory
from experiments.task_settings import TaskSettings
from star_keras.config import OptimizerConfig, StarConfig
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class StarSettings(Settings):
    """The script itself."""

    run_dir: str | None = setting(
        None, "Directory of the run. Needed unless --dry_run is given.", is_path=True
    )
    dry_run: bool = setting(
        False, "Sample, grade and pack a few problems, print it, and train nothing."
    )
    verbose: int = setting(1, "0 prints nothing of the run.", at_least=0, at_most=1)
    iterations: int = setting(10, "Iterations of the outer loop.", at_least=1)
    start_iter: int | None = setting(
        None,
        "Run again from this iteration on. Leave it out to resume.",
        at_least=1,
    )
    verifier: str | None = setting(
        None, "Preset of experiments.verifier, which ranks for --drop_lowest."
    )
    extra_eval_splits: tuple[str, ...] = setting(
        (), "Splits that the final model is evaluated on too."
    )

    def check(self):
        if not self.run_dir and not self.dry_run:
            raise ValueError("--run_dir is needed unless --dry_run is given.")
        if self.start_iter is not None and self.start_iter > self.iterations:
            rule = f"at most iterations={self.iterations}, where the run ends"
            remedy = "Set more iterations."
            raise invalid("start_iter", rule, self.start_iter, remedy)


SETTINGS = (
    StarSettings,
    TaskSettings,
    ModelSettings,
    ProcessSettings,
    StarConfig,
    OptimizerConfig,
)
define_flags(*SETTINGS)


def main(argv):
    script, task_settings, model, process, config, optimizer = from_flags(
        argv, *SETTINGS
    )
    config.selection.check_verifier(script.verifier or None)
    task = task_settings.make()
    unknown = sorted(set(script.extra_eval_splits) - set(task.splits))
    if unknown:
        raise app.UsageError(
            f"--extra_eval_splits has {unknown}. Expected some of {list(task.splits)}."
        )
    if not script.dry_run:
        make_directory("run_dir", script.run_dir)
    say_hello(f"STaR on {task.name} from {model.preset}, {script.run_dir or 'dry run'}")
    load_libraries()
    run(script, task, model, process, config, optimizer)


def run(script, task, model_settings, process_settings, config, optimizer):
    """Train, evaluate, and save the final preset."""
    import keras

    from experiments.dry_run import print_dry_run
    from star_keras.callbacks import StarIterationCallback
    from star_keras.distribution import processes
    from star_keras.outer_loop.problems import checked_problems
    from star_keras.storage.command_log import record_command
    from star_keras.training import compile_model

    process_settings.join(script, model_settings, config, optimizer)
    keras.utils.set_random_seed(config.run.seed)
    model = model_settings.load()
    compile_model(model, optimizer)
    verifier = None
    if script.verifier:
        verifier = dataclasses.replace(model_settings, preset=script.verifier).load()
    if script.dry_run:
        print_dry_run(model, task, config, script.iterations, verifier)
        return
    splits = script.extra_eval_splits
    extra = {split: checked_problems(task, split) for split in splits}
    star = StarIterationCallback(model, task, script.run_dir, config, verifier=verifier)
    if script.start_iter is not None:
        star.rewind(script.start_iter)

    def on_train_begin(logs=None):  # the run directory is there now
        if processes.is_writer():
            words = [f"experiments.{Path(sys.argv[0]).stem}", *sys.argv[1:]]
            record_command(star.run_dir, words)

    command_log = keras.callbacks.LambdaCallback(on_train_begin=on_train_begin)
    star.fit(script.iterations, [command_log], verbose=script.verbose)

    for split, problems in extra.items():
        evaluate_split(star, split, problems)
    with star.run.lock.held(), processes.whole(model.variables):
        if processes.is_writer():
            save_directory(model.save_to_preset, star.run_dir / "preset")
    if processes.is_writer():
        print(f"Samples, metrics, plots and the final preset are in {star.run_dir}.")


def evaluate_split(star, split, problems):
    """Evaluate the final model on a split, into `run_dir/<split>/`."""
    from star_keras.distribution import processes
    from star_keras.outer_loop.evaluation import evaluate, save_evaluation

    loop = star.loop
    metrics, samples = evaluate(
        loop.prompts,
        problems,
        loop.eval_sampler,
        iteration=star.initial_epoch,
    )
    save_evaluation(star.run_dir / split, metrics, samples)
    if processes.is_writer():
        accuracy, count = metrics["accuracy"], metrics["num_problems"]
        print(f"{split}: {accuracy:.2%} of {count} problems")


if __name__ == "__main__":
    run_main(main)
