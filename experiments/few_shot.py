"""The few-shot baselines: direct answers, and chain of thought.

    python -m experiments.few_shot --task=commonsense_qa --output=runs/few_shot \\
        --preset=hf://EleutherAI/gpt-j-6b --dtype=bfloat16

The same questions twice: once after worked examples without their rationales
(`direct`), once after worked examples with them (`chain_of_thought`). Nothing is
trained. Flags are those of `experiments.evaluate`.
"""

from absl import app
from etils import epath

from experiments.command_line import run_main, say_hello
from experiments.common import load_libraries
from experiments.evaluate import checked_settings, load_sampler, write_evaluation
from experiments.outputs import make_new_directory


def main(argv):
    script, task, model, process, sampling, run = checked_settings(argv)
    if sampling.direct or not sampling.few_shot:
        raise app.UsageError(
            "--nofew_shot and --direct are for experiments.evaluate: this script "
            "shows worked examples without rationales and with them."
        )
    if script.verifier is not None:
        raise app.UsageError(
            "--verifier is for experiments.evaluate: a verifier knows prompts without "
            "worked examples."
        )
    make_new_directory("output", script.output)
    say_hello(f"few-shot baselines of {model.preset} on {task.name}")
    load_libraries()
    from star_keras.distribution import processes
    from star_keras.outer_loop.prompts import PromptBuilder

    sampler, chat = load_sampler(script, model, process, sampling, run)
    for name, direct in (("direct", True), ("chain_of_thought", False)):
        if processes.is_writer():
            print(f"=== {name} ===")
        prompts = PromptBuilder(task, direct=direct, chat=chat)
        output = epath.Path(script.output) / name
        write_evaluation(script, sampling, prompts, sampler, output)


if __name__ == "__main__":
    run_main(main)
