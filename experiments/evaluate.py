"""Evaluate a preset on a split of a task.

    python -m experiments.evaluate --preset=runs/cpu/preset --output=runs/eval \\
        --nofew_shot --max_new_tokens=112

Exact match with its 95% interval, by problem class too: greedy, or with a
`--temperature`, which the metrics then have. With `--num_samples=8 --temperature=0.7`
also pass@1 to pass@8 and maj@1 to maj@8, and with `--verifier=runs/verifier` best@1 to
best@8, with a plot of them.
"""

import dataclasses

from absl import app

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import ModelSettings, ProcessSettings, load_libraries
from experiments.outputs import make_new_directory
from experiments.task_settings import TaskSettings
from star_keras.config import SAMPLER_SETTINGS, RunConfig, SamplingConfig
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Settings):
    """What is evaluated, and where the result goes."""

    output: str | None = setting(
        None,
        "Directory of metrics and completions, new or empty.",
        is_path=True,
        is_needed=True,
    )
    split: str = setting("eval", "Split of the task.")
    num_problems: int | None = setting(
        None, "Evaluate on the first problems of the split. Default: all.", at_least=1
    )
    num_samples: int = setting(
        1, "Completions a problem. More than one needs a --temperature.", at_least=1
    )
    verifier: str | None = setting(
        None,
        "Preset of experiments.verifier, which ranks the completions of a problem.",
    )

    def check(self):
        if self.verifier is not None and self.num_samples == 1:
            rule = "`None` with num_samples=1, where there is nothing to rank"
            raise invalid("verifier", rule, self.verifier)


SETTINGS = (
    EvaluateSettings,
    TaskSettings,
    ModelSettings,
    ProcessSettings,
    SamplingConfig,
    RunConfig,
)
define_flags(*SETTINGS[:-2])
define_flags(SamplingConfig, only=(*SAMPLER_SETTINGS, "few_shot", "direct", "chat"))
define_flags(RunConfig, only=("seed",))


def checked_settings(argv):
    """The settings of the flags, and the task in place of its settings."""
    settings = from_flags(argv, *SETTINGS)
    script, task_settings, *_, sampling, _ = settings
    task = task_settings.make()
    if script.split not in task.splits:
        raise app.UsageError(
            f"--split={script.split} is not a split of {task.name}. Expected one of "
            f"{list(task.splits)}."
        )
    if script.num_samples > 1 and not sampling.temperature:
        rule = "1 without a --temperature, since greedy samples are all the same"
        raise invalid("num_samples", rule, script.num_samples)
    settings[1] = task
    return settings


def load_sampler(script, model, process, sampling, run):
    """The sampler of the flags, and the chat template of the preset or `None`."""
    import keras

    from star_keras.outer_loop.prompts import find_chat_template
    from star_keras.sampling import configured_sampler

    process.join(script, model, sampling, run)
    keras.utils.set_random_seed(run.seed)
    model = model.load()
    chat = find_chat_template(model.preprocessor, sampling.chat)
    return configured_sampler(model, sampling, seed=run.seed), chat


def load_verifier(script, model):
    """The verifier of the flags, or `None`.

    Args:
        script: The `EvaluateSettings`.
        model: The `ModelSettings` of the evaluated model.
    """
    if script.verifier is None:
        return None
    return dataclasses.replace(model, preset=script.verifier).load()


def write_evaluation(script, sampling, prompts, sampler, output, verifier=None):
    """Evaluate, write `metrics.json` and `completions.jsonl`, and print.

    With several samples a problem, `by_k.png` is a plot of the metrics over k.

    Args:
        script: The `EvaluateSettings`.
        sampling: The `SamplingConfig` of the sampler.
        prompts: A `PromptBuilder`.
        sampler: Samples the completions.
        output: Directory, made if needed.
        verifier: A causal LM that ranks the completions. Defaults to none.
    """
    from etils import epath

    from star_keras.distribution import processes
    from star_keras.outer_loop import plots
    from star_keras.outer_loop.contamination import describe_repeats
    from star_keras.outer_loop.evaluation import evaluate, save_evaluation
    from star_keras.outer_loop.problems import checked_problems, describe_problems
    from star_keras.outer_loop.verification import (
        check_verifier,
        verified_metrics,
        verifier_prompts,
        verifier_scores,
    )

    problems = checked_problems(prompts.task, script.split)[: script.num_problems]
    processes.check_same(describe_problems({script.split: problems}, prompts))
    if verifier is not None:
        check_verifier(verifier, sampler)
    repeats = describe_repeats(problems, f"problems of {script.split!r}")
    if repeats and processes.is_writer():
        print(repeats)
    metrics, samples = evaluate(
        prompts, problems, sampler, num_samples=script.num_samples
    )
    if verifier is not None:
        plain = verifier_prompts(prompts.task, prompts.chat)
        scores = verifier_scores(verifier, plain, problems, samples)
        metrics |= verified_metrics(samples, scores)
    for name in ("temperature", "top_k", "top_p", "min_p"):
        if value := getattr(sampling, name):
            metrics[name] = value
    save_evaluation(output, metrics, samples)
    if processes.is_writer():
        if script.num_samples > 1:
            plots.plot_over_k(metrics, epath.Path(output) / "by_k.png")
        if prompts.chat is not None:
            print("Prompts are turns of the model's chat template (--nochat: plain).")
        if not sampling.temperature:
            print("Completions are greedy.")
        for name, value in metrics.items():
            text = f"{value:.4f}" if isinstance(value, float) else value
            print(f"{name:24} {text}")
        print(f"Metrics and completions are in {output}.")


def main(argv):
    script, task, model, process, sampling, run = checked_settings(argv)
    make_new_directory("output", script.output)
    say_hello(f"evaluation of {model.preset} on {task.name}, split {script.split}")
    load_libraries()
    from star_keras.outer_loop.prompts import PromptBuilder

    sampler, chat = load_sampler(script, model, process, sampling, run)
    prompts = PromptBuilder(
        task, few_shot=sampling.few_shot, direct=sampling.direct, chat=chat
    )
    verifier = load_verifier(script, model)
    write_evaluation(script, sampling, prompts, sampler, script.output, verifier)


if __name__ == "__main__":
    run_main(main)
