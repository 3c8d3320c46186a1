"""Training speed: our GPT-J and Llama against stock KerasHub and transformers.

    python -m benchmarks.train --size=small --sequence_length=256
    python -m benchmarks.train --family=llama --size=small --sequence_length=256

Steps of 8 full rows in float32 with Adam, gradients clipped to the norm 1. Each
peer has a process of its own:
    star_keras     `fit` of `GPTJCausalLM`, or of KerasHub's `LlamaCausalLM` after
                   `packed_causal_lm`; with `keep_freed_memory` as in `experiments`
    checkpointing  the same with gradient checkpointing
    keras_hub      `fit` of the stock `LlamaCausalLM`, and for GPT-J of KerasHub's
                   `GPTNeoXCausalLM` of the same size
    transformers   the model of transformers and AdamW in PyTorch

With `--rationales` the rows hold examples of the lengths of GSM8K's training problems
(33 to 425 tokens), and only tokens of examples count:
    packed         several examples a row
    padded         one example a row; rows as long as the longest example
    keras_hub      the rows of `padded` with the stock model

Columns:
    tokens/s   tokens of the training steps, without padding
    ours is    speed of the first row against this one
    of peak    FLOPs of the matrix products (three times those of a forward pass)
               against the peak, a float32 matrix product of 2048
    compile s  extra time of the first call
    MiB        peak growth of the resident set after the model is made (Linux only)
"""

import functools
import itertools
import json
import tempfile

from absl import app, flags

from benchmarks import training_rows
from benchmarks.comparison import choose, measure_alone, measure_peer
from benchmarks.libraries import load_libraries
from benchmarks.machine import matmul_peak
from benchmarks.measurements import measure_training
from benchmarks.models import adam, chosen_size

ROWS = ("star_keras", "checkpointing", "keras_hub", "transformers")
RATIONALES = ("packed", "padded", "keras_hub")

FLAGS = flags.FLAGS
flags.DEFINE_integer(
    "sequence_length", None, "Tokens a row. Default: 256, with --rationales 512."
)
flags.DEFINE_integer("batch_size", 8, "Rows a step.")
flags.DEFINE_integer("steps", 20, "Steps of a measurement.")
flags.DEFINE_integer("repeats", 3, "Measurements after a first call; the best counts.")
flags.DEFINE_bool("rationales", False, "Rows of examples instead of full rows.")
flags.DEFINE_list("peers", None, "Rows of the table. Default: all that are installed.")
flags.DEFINE_enum(
    "peer",
    None,
    list(dict.fromkeys((*ROWS[:3], *RATIONALES))),
    "Measure this row alone, and print JSON.",
)


def sequence_length():
    if FLAGS.sequence_length is not None:
        return FLAGS.sequence_length
    return 512 if FLAGS.rationales else 256


def full_rows():
    vocabulary_size = chosen_size().vocabulary_size
    return training_rows.full_rows(vocabulary_size, FLAGS.batch_size, sequence_length())


def make_packed_model():
    from star_keras.models import packed_causal_lm

    return packed_causal_lm(chosen_size().make_model())


def make_model(name):
    """The compiled model of a row."""
    if name == "keras_hub":
        from benchmarks.peers.keras_hub import make_trained_model

        return make_trained_model(chosen_size())
    model = make_packed_model()
    model.compile(adam(), gradient_checkpointing=name == "checkpointing")
    return model


def make_batches(packed):
    """A function that makes an endless stream of batches, and their row length."""
    from star_keras.training import training_batches

    length = sequence_length()
    if not FLAGS.rationales:
        batch = training_rows.full_batch(full_rows())
        return lambda **_: itertools.repeat(batch), length
    examples = training_rows.gsm8k_like_examples(chosen_size().vocabulary_size)
    if not packed:
        length = max(map(len, examples))
        return functools.partial(training_rows.padded_batches, examples), length
    return functools.partial(training_batches, examples, pad_id=0, seed=(0,)), length


def make_step(name):
    """A function that makes `steps` training steps, and the tokens of one step."""
    stock = name == "keras_hub"
    load_libraries(keep_memory=not stock)
    from star_keras.training import training_dataset

    batches, length = make_batches(packed=name == "packed")
    shape = {"batch_size": FLAGS.batch_size, "sequence_length": length}

    def without_segments(packed, **shape):
        return map(training_rows.without_segments, batches(**shape))

    dataset = (
        training_dataset(without_segments, packed=False, **shape)
        if stock
        else training_dataset(batches, **shape)
    )
    tokens = sum(
        int(x["padding_mask"].sum())
        for x, _, _ in itertools.islice(batches(**shape), FLAGS.steps)
    )
    model = make_model(name)

    def step():
        model.fit(dataset, steps_per_epoch=FLAGS.steps, verbose=0, shuffle=False)

    return step, tokens / FLAGS.steps


def measure(name):
    """Measurements of a row of Keras, as JSON."""
    step, tokens = make_step(name)
    return {"tokens": tokens, **measure_training(step, FLAGS.repeats)}


def measure_transformers():
    """Measurements of the row of transformers."""
    load_libraries()
    from star_keras.models import save_hugging_face

    tokens = full_rows()
    job = {
        "peer": "transformers",
        "work": "train",
        "tokens": tokens.tolist(),
        "steps": FLAGS.steps,
        "repeats": FLAGS.repeats,
    }
    with tempfile.TemporaryDirectory() as directory:
        save_hugging_face(chosen_size().make_model(), directory)
        return {"tokens": tokens.size, **measure_peer(directory, job)}


def main(argv):
    if FLAGS.peer:
        print(json.dumps(measure(FLAGS.peer)))
        return
    size = chosen_size()
    rows = RATIONALES if FLAGS.rationales else ROWS
    peers = choose(rows, FLAGS.peers)
    length = sequence_length()
    settings = {
        "family": FLAGS.family,
        "size": FLAGS.size,
        "sequence_length": length,
        "batch_size": FLAGS.batch_size,
        "steps": FLAGS.steps,
        "repeats": FLAGS.repeats,
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    if FLAGS.rationales:
        arguments.insert(0, "--rationales")
    row_flops = size.forward_flops(
        length, attended=length * (length + 1) / 2, head_tokens=length
    )
    flops_a_token = 3 * row_flops / length
    peak = matmul_peak()
    print(" ".join(arguments), f"(peak {peak / 1e9:.0f} GFLOP/s)", flush=True)
    print(
        f"{'':16} {'tokens/s':>9} {'ours is':>8} {'ms/step':>8} {'of peak':>8} "
        f"{'compile s':>9} {'MiB':>6}"
    )
    first = None
    for peer in peers:
        found = (
            measure_transformers()
            if peer == "transformers"
            else measure_alone("benchmarks.train", arguments, peer)
        )
        step = found["seconds"] / FLAGS.steps
        speed = found["tokens"] / step
        first = first or speed
        share = f"{speed * flops_a_token / peak:8.0%}"
        print(
            f"{peer:16} {speed:9.0f} {first / speed:7.2f}x {1e3 * step:8.0f} "
            f"{'' if FLAGS.rationales else share:>8} {found['compile']:9.1f} "
            f"{found['memory']:6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
