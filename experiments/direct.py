"""The baseline of fine-tuning on answers alone, without rationales.

    python -m experiments.direct --task=gsm8k --run_dir=runs/direct \\
        --preset=hf://EleutherAI/gpt-j-6b --start_steps=2000

One iteration of the outer loop whose rationales are the known answers: the base
model is fine-tuned for `--start_steps` steps on questions and answers, and
evaluated without worked examples. All other flags are those of
`experiments.star`.
"""

from absl import app, flags

from experiments import star
from experiments.command_line import run_main

FLAGS = flags.FLAGS
BASELINE = {"direct": True, "few_shot": False, "iterations": 1}
for _name, _value in BASELINE.items():
    FLAGS.set_default(_name, _value)


def main(argv):
    for name, value in BASELINE.items():
        if FLAGS[name].value != value:
            raise app.UsageError(
                f"--{name} is {value} for this baseline. For other values use "
                "experiments.star."
            )
    star.main(argv)


if __name__ == "__main__":
    run_main(main)
