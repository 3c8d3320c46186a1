"""Make the base model of the arithmetic runs: a small GPT-J with general skills.

    python -m experiments.pretrain --output=experiments/presets/arithmetic_base

What the model is shown, all of it in the scratchpad's form:

- additions of one and two digits, with their working;
- at most `--worked_examples` worked additions of each longer length;
- string tasks of any length that are no additions, in place of a language
  model's general skills. They line two strings of digits up from the right and
  copy one digit a line, from where the mark between the strings says:

      &  the first string
      |  the second string
      ~  a third string, which the prompt shows like a hint

Some prompts of each kind show the answer as a hint. What `Arithmetic` holds out
for evaluation, up to `--held_out` problems a length, is not shown; but for the
100 sums of one digit, which nothing else could teach.
"""

import json
import random

import keras
import tokenizers
from absl import app, flags
from tokenizers import models, pre_tokenizers, trainers

from star_keras.callbacks import feed_token_ids
from star_keras.learning_rates import WarmupSchedule
from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    GPTJCausalLMPreprocessor,
    GPTJTokenizer,
)
from star_keras.packing import (
    tokenize_examples,
    training_batches,
    training_dataset,
)
from star_keras.tasks import Problem
from star_keras.tasks.arithmetic import Arithmetic, make_problem, scratchpad

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "Directory of the preset.", required=True)
flags.DEFINE_integer("seed", 0, "Seed of weights and data.")
flags.DEFINE_integer("worked_examples", 100, "Worked additions a length above 2.")
flags.DEFINE_integer("held_out", 1000, "Held-out problems a length, never shown.")
flags.DEFINE_list("digits", ["1", "2", "3", "4", "5"], "Lengths of the strings.")
flags.DEFINE_integer("num_layers", 3, "Transformer blocks.")
flags.DEFINE_integer("num_heads", 4, "Attention heads.")
flags.DEFINE_integer("hidden_dim", 128, "Width of the network.")
flags.DEFINE_float("learning_rate", 1e-3, "Adam's, at its highest.")
flags.DEFINE_list("steps", ["300", "1000", "1200"], "Steps of the three stages.")

OPERATIONS = "&|~"
TASK = Arithmetic()


# === Examples ===


def draw_number(draw, n):
    low, high = (0, 9) if n == 1 else (10 ** (n - 1), 10**n - 1)
    return str(draw.randint(low, high))


def draw_operands(draw, n, held_out):
    """Operands of an addition whose problem id is not in `held_out`."""
    while True:
        first, second = draw_number(draw, n), draw_number(draw, n)
        if make_problem(first, second).id not in held_out:
            return first, second


def copy_digits(operation, first, second, third):
    """The working and the answer of a string task."""
    source = {"&": first, "|": second, "~": third}[operation]
    lines = []
    for kept in range(len(first), 0, -1):
        left = [*first[:kept], operation, *second[:kept], ","]
        lines.append(" ".join([*left, *source[kept:], "C: 0"]))
    lines.append(" ".join([",", *source, "C: 0"]))
    lines.append(" ".join(["0", *source]))
    return "\n".join(lines), " ".join(source)


def string_example(draw, n, hint):
    """A prompt and response of a random string task of `n` digits."""
    operation = draw.choice(OPERATIONS)
    first, second, third = (draw_number(draw, n) for _ in range(3))
    working, answer = copy_digits(operation, first, second, third)
    question = f"{' '.join(first)} {operation} {' '.join(second)}"
    problem = Problem(id=question, question=question, answer=answer)
    prompt = TASK.format_question(problem, hint=hint or operation == "~")
    return prompt, TASK.format_response(working, problem), 1.0


def addition_example(first, second, hint):
    """A prompt and response of a worked addition."""
    problem = make_problem(first, second)
    response = TASK.format_response(scratchpad(first, second), problem)
    return TASK.format_question(problem, hint=hint), response, 1.0


def mixture(draw, count, held_out, *, additions, worked, strings, hints):
    """Random examples.

    Args:
        draw: A `random.Random`.
        count: Number of examples.
        held_out: Ids of problems that must not be shown.
        additions: Dict from a number of digits to its share.
        worked: Pairs of a share and a list of operand pairs.
        strings: Pair of a share and the numbers of digits.
        hints: Share of the prompts with a hint.
    """
    kinds = [*additions, "worked", "strings"]
    shares = [*additions.values(), worked[0], strings[0]]
    for kind in draw.choices(kinds, shares, k=count):
        hint = draw.random() < hints
        if kind == "worked":
            # Most with a hint: without one they are soon known by heart.
            yield addition_example(*draw.choice(worked[1]), draw.random() < 0.75)
        elif kind == "strings":
            yield string_example(draw, draw.choice(strings[1]), hint)
        else:
            yield addition_example(*draw_operands(draw, kind, held_out), hint)


# === Model ===


def make_tokenizer():
    """A byte-pair encoding of the scratchpad's few words, over all bytes."""
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


def make_model():
    preprocessor = GPTJCausalLMPreprocessor(make_tokenizer(), sequence_length=512)
    backbone = GPTJBackbone(
        vocabulary_size=preprocessor.tokenizer.vocabulary_size(),
        num_layers=FLAGS.num_layers,
        num_heads=FLAGS.num_heads,
        hidden_dim=FLAGS.hidden_dim,
        intermediate_dim=4 * FLAGS.hidden_dim,
        rotary_dim=FLAGS.hidden_dim // FLAGS.num_heads // 2,
        max_sequence_length=512,
    )
    return GPTJCausalLM(backbone, preprocessor)


# === Training ===


def make_dataset(examples, batch_size, row_length, pad_id, seed):
    return training_dataset(
        lambda: training_batches(
            examples,
            batch_size=batch_size,
            row_length=row_length,
            pad_id=pad_id,
            seed=seed,
        ),
        batch_size=batch_size,
        row_length=row_length,
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    keras.utils.set_random_seed(FLAGS.seed)
    draw = random.Random(FLAGS.seed)
    lengths = [int(n) for n in FLAGS.digits]
    task = Arithmetic(
        digits=lengths, extrapolation_digits=(), eval_problems=FLAGS.held_out
    )
    held_out = {p.id for p in task.problems("eval") if p.problem_class != "1_digits"}
    worked = [
        draw_operands(draw, n, held_out)
        for n in lengths
        for _ in range(FLAGS.worked_examples)
        if n > 2
    ]
    none = (0.0, [])
    # One digit first, then two, then everything: a mixture from the start
    # stays on a plateau where the model copies but does not add.
    stages = [
        (64, 5_000, {"additions": {1: 1}, "worked": none, "strings": none, "hints": 0}),
        (
            64,
            8_000,
            {
                "additions": {1: 0.25, 2: 0.75},
                "worked": none,
                "strings": none,
                "hints": 0,
            },
        ),
        (
            128,
            36_000,
            {
                "additions": {1: 0.15, 2: 0.35},
                "worked": (0.06, worked),
                "strings": (0.44, lengths),
                "hints": 0.3,
            },
        ),
    ]
    model = make_model()
    feed_token_ids(model)
    steps = [int(n) for n in FLAGS.steps]
    model.compile(
        optimizer=keras.optimizers.Adam(
            WarmupSchedule(
                FLAGS.learning_rate,
                warmup_steps=30,
                hold_steps=sum(steps) * 7 // 10,
                decay="linear",
                decay_steps=sum(steps) * 3 // 10 - 30,
            ),
            beta_2=0.98,
            global_clipnorm=1.0,
        ),
        weighted_metrics=[],
    )
    tokenizer = model.preprocessor.tokenizer
    for number, (row_length, count, parts) in enumerate(stages):
        examples = tokenize_examples(
            model.preprocessor, list(mixture(draw, count, held_out, **parts))
        )
        model.fit(
            make_dataset(
                examples, 32, row_length, tokenizer.pad_token_id, (FLAGS.seed, number)
            ),
            steps_per_epoch=steps[number],
            shuffle=False,
            verbose=2,
        )
    model.save_to_preset(FLAGS.output)
    print(f"Saved the preset {FLAGS.output}.")


if __name__ == "__main__":
    app.run(main)
