"""Make the base model of the arithmetic runs: a small GPT-J with general skills.

    python -m experiments.pretrain --output=presets/arithmetic_base

`pretrain_examples` has what the model is shown.
"""

import dataclasses
import functools
import json
import random

from etils import epath

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import load_libraries
from experiments.outputs import make_new_directory, save_directory
from experiments.pretrain_examples import (
    OPERATIONS,
    addition_example,
    draw_number,
    draw_operands,
    mixture,
)
from star_keras.config.run import LARGEST_SEED
from star_keras.tasks.arithmetic import Arithmetic
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting

_WARMUP_STEPS = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainSettings(Settings):
    """The model, what it is shown, and where it goes."""

    output: str | None = setting(
        None, "Directory of the preset, new or empty.", is_path=True, is_needed=True
    )
    seed: int = setting(
        0, "Seed of weights and data.", at_least=0, at_most=LARGEST_SEED
    )
    worked_examples: int = setting(
        100, "Worked additions of each length above 2.", at_least=0
    )
    held_out: int = setting(
        1000, "Held-out problems of each length, never shown.", at_least=1
    )
    digits: tuple[str, ...] = setting(
        ("1", "2", "3", "4", "5"), "Lengths of the additions."
    )
    string_digits: tuple[str, ...] = setting(
        ("1", "2", "3", "4", "5"), "Lengths of the string tasks."
    )
    num_layers: int = setting(3, "Transformer blocks.", at_least=1)
    num_heads: int = setting(4, "Attention heads.", at_least=1)
    hidden_dim: int = setting(128, "Width of the network.", at_least=1)
    learning_rate: float = setting(1e-3, "Highest learning rate of Adam.", above=0)
    steps: tuple[str, ...] = setting(
        ("300", "1000", "1200"), "Training steps of the three stages."
    )

    def check(self):
        for name in ("digits", "string_digits", "steps"):
            value = getattr(self, name)
            if not all(number.isdecimal() and int(number) for number in value):
                raise invalid(name, "numbers of at least 1", ",".join(value))
        if len(self.steps) != 3:
            raise invalid("steps", "three numbers", ",".join(self.steps))
        if _decay_steps(self.steps) < 1:
            rule = "a sum of at least 104, for warm-up and decay of the learning rate"
            raise invalid("steps", rule, ",".join(self.steps), "Train longer.")


def _decay_steps(steps):
    """Steps of the decay: the last three tenths, less those of the warm-up."""
    return sum(map(int, steps)) * 3 // 10 - _WARMUP_STEPS


define_flags(PretrainSettings)


# === Model ===


def make_tokenizer():
    """A byte-pair encoding of the scratchpad's few words, over all bytes."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    from star_keras.models import GPTJTokenizer

    draw = random.Random(0)
    texts = []
    for n in (1, 2, 3, 4, 5) * 20:
        prompt, response, _ = addition_example(
            draw_number(draw, n), draw_number(draw, n), hint=True
        )
        texts += [f"{prompt}{response}", *(f" {o} " for o in OPERATIONS)]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        min_frequency=5,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    return GPTJTokenizer(
        vocabulary=trained["vocab"], merges=[" ".join(m) for m in trained["merges"]]
    )


def make_model(settings):
    """A GPT-J with random weights, and its preprocessor."""
    from star_keras.models import (
        GPTJBackbone,
        GPTJCausalLM,
        GPTJCausalLMPreprocessor,
    )

    preprocessor = GPTJCausalLMPreprocessor(make_tokenizer(), sequence_length=512)
    backbone = GPTJBackbone(
        vocabulary_size=preprocessor.tokenizer.vocabulary_size(),
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        hidden_dim=settings.hidden_dim,
        intermediate_dim=4 * settings.hidden_dim,
        rotary_dim=settings.hidden_dim // settings.num_heads // 2,
        max_sequence_length=512,
    )
    return GPTJCausalLM(backbone, preprocessor)


# === Training ===


def compile_model(model, settings):
    """Compile a model for all stages."""
    import keras

    from star_keras.training import WarmupSchedule

    schedule = WarmupSchedule(
        settings.learning_rate,
        warmup_steps=_WARMUP_STEPS,
        hold_steps=sum(map(int, settings.steps)) * 7 // 10,
        decay="linear",
        decay_steps=_decay_steps(settings.steps),
    )
    model.compile(
        optimizer=keras.optimizers.Adam(schedule, beta_2=0.98, global_clipnorm=1.0),
        weighted_metrics=[],
    )


def stages(settings, draw):
    """The examples of each stage, prompts and responses, drawn in turn."""
    lengths = [int(n) for n in settings.digits]
    task = Arithmetic(
        digits=lengths, extrapolation_digits=(), eval_problems=settings.held_out
    )
    held_out = {p.id for p in task.problems("eval") if p.problem_class != "1_digit"}
    worked = [
        draw_operands(draw, n, held_out)
        for n in lengths
        for _ in range(settings.worked_examples)
        if n > 2
    ]
    # One digit first, then two, then everything: a mixture from the start
    # stays on a plateau where the model copies but does not add.
    for count, parts in (
        (5_000, {"additions": {1: 1}}),
        (8_000, {"additions": {1: 0.25, 2: 0.75}}),
        (
            36_000,
            {
                "additions": {1: 0.15, 2: 0.35},
                "worked": (0.06, worked),
                "strings": (0.44, [int(n) for n in settings.string_digits]),
                "hints": 0.3,
            },
        ),
    ):
        yield list(mixture(draw, count, held_out, **parts))


def row_length(examples):
    """Tokens of a packed row: a multiple of 64 that holds the longest example."""
    return max(-(-len(example) // 64) * 64 for example in examples)


def main(argv):
    (settings,) = from_flags(argv, PretrainSettings)
    make_new_directory("output", settings.output)
    say_hello(f"pretraining {settings.output}")
    load_libraries()
    import keras

    from star_keras.training import (
        tokenize_examples,
        training_batches,
        training_dataset,
    )
    from star_keras.training.dataset import feed_token_ids

    keras.utils.set_random_seed(settings.seed)
    model = make_model(settings)
    feed_token_ids(model)
    compile_model(model, settings)
    for number, texts in enumerate(stages(settings, random.Random(settings.seed))):
        examples = tokenize_examples(model.preprocessor, texts)
        batches = functools.partial(
            training_batches,
            examples,
            pad_id=model.preprocessor.tokenizer.pad_token_id,
            seed=(settings.seed, number),
        )
        model.fit(
            training_dataset(
                batches, batch_size=32, sequence_length=row_length(examples)
            ),
            steps_per_epoch=int(settings.steps[number]),
            shuffle=False,
            verbose=2,
        )
    save_directory(model.save_to_preset, epath.Path(settings.output))
    print(f"Saved the preset {settings.output}.")


if __name__ == "__main__":
    run_main(main)
