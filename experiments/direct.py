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

FLAGS = flags.FLAGS


def main(argv):
    FLAGS.direct = True
    FLAGS.few_shot = False
    FLAGS.iterations = 1
    star.main(argv)


if __name__ == "__main__":
    app.run(main)
