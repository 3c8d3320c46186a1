"""The few-shot baselines: direct answers, and chain of thought.

    python -m experiments.few_shot --task=commonsense_qa --output=runs/few_shot \
        --preset=hf://EleutherAI/gpt-j-6b --dtype=bfloat16

The same questions twice, behind worked examples without their rationales
(`direct`) and with them (`chain_of_thought`). Nothing is trained.
"""

import keras
from absl import app, flags
from etils import epath

from experiments.common import load_model, make_sampler, make_task
from experiments.evaluate import check_flags, write_evaluation
from star_keras import prompts

FLAGS = flags.FLAGS


def main(argv):
    task = make_task()
    check_flags(argv, task)
    if FLAGS.no_prompt or FLAGS.direct:
        raise app.UsageError(
            "--no_prompt and --direct are for experiments.evaluate: this script "
            "shows worked examples, direct and with rationales."
        )
    keras.utils.set_random_seed(FLAGS.seed)
    sampler = make_sampler(load_model())
    for name, direct in (("direct", True), ("chain_of_thought", False)):
        print(f"=== {name} ===")
        write_evaluation(
            task,
            sampler,
            epath.Path(FLAGS.output) / name,
            split=FLAGS.split,
            prefix=prompts.few_shot_prompt(task, direct=direct),
        )


if __name__ == "__main__":
    app.run(main)
