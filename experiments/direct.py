"""The baseline of fine-tuning on answers alone, without rationales.

    python -m experiments.direct --task=gsm8k --run_dir=runs/direct \\
        --preset=hf://EleutherAI/gpt-j-6b --start_steps=2000

One iteration of the outer loop whose rationales are the known answers: the base
model is fine-tuned for `--start_steps` steps on questions and answers, and
evaluated without worked examples. Flags and flagfiles are those of `experiments.star`.
The first line of output names the given flags that answers alone do not use.
"""

from absl import app, flags

from experiments import star
from experiments.command_line import run_main
from star_keras.config import SamplingConfig, SelectionConfig
from star_keras.utils.settings import settings_of

FLAGS = flags.FLAGS
BASELINE = {"direct": True, "few_shot": False, "iterations": 1}
# Of the settings of sampling, those that answers alone have as well.
_USED = {
    *("direct", "few_shot", "chat", "n_train_samples"),
    *("sampler", "max_new_tokens", "sample_batch_size"),
}
# Of all other settings, those that they do not have.
_UNUSED = "iterations", "verifier", "objective", "dpo_beta", "nll_weight"
for _name, _value in BASELINE.items():
    FLAGS.set_default(_name, _value)


def main(argv):
    for name in ("direct", "few_shot"):
        if FLAGS[name].value != BASELINE[name]:
            raise app.UsageError(
                f"--{name} is {BASELINE[name]} for this baseline. For other values use "
                "experiments.star."
            )
    settings = settings_of(SamplingConfig) + settings_of(SelectionConfig)
    unused = [*_UNUSED, *({item.name for item in settings} - _USED)]
    unused = [name for name in unused if FLAGS[name].value != FLAGS[name].default]
    for name in unused:
        FLAGS[name].unparse()
    if unused:
        names = ", ".join(f"--{name}" for name in sorted(unused))
        print(f"Not used for one iteration on answers alone: {names}.", flush=True)
    star.main(argv)


if __name__ == "__main__":
    run_main(main)
