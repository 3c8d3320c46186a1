"""Training speed: our GPT-J against transformers and a stock KerasHub model.

    python -m benchmarks.train --size=small --row_length=256

Steps of 8 full rows in float32 with Adam, gradients clipped to the norm 1, each
peer in a process of its own:
    star_keras        `fit` of GPTJCausalLM, with `keep_freed_memory` as in our
                      scripts
    checkpointing     the same with gradient checkpointing
    keras_hub         `fit` of KerasHub's GPTNeoXCausalLM (the nearest of its
                      models: parallel blocks, rotary positions, untied head), the
                      same sizes
    transformers      GPTJForCausalLM and AdamW in PyTorch

With `--rationales` the rows hold examples of the lengths of GSM8K's training
problems (deciles of question and answer, at 4 characters a token: 33 to 425
tokens), and only tokens of examples count:
    packed            several examples a row
    padded            an example a row, all as long as the longest

`of peak` is the share that the FLOPs of the matrix products (three times the
forward pass's) have of the machine's float32 matrix product of 2048; memory is
the growth of the resident set at its peak over what it was with the model made
(Linux only).
"""

import json
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

from benchmarks.machine import (
    forward_flops,
    matmul_peak,
    memory_mib,
    reset_peak,
)

SIZES = {  # layers, width, heads, vocabulary
    "tiny": (1, 64, 2, 512),
    "small": (4, 256, 4, 512),
    "base": (12, 768, 12, 50400),
    "arithmetic": (3, 128, 4, 289),  # of the default run
}
ROWS = ("star_keras", "checkpointing", "keras_hub", "transformers")
RATIONALES = ("packed", "padded")
# Deciles of the lengths of GSM8K's training problems, in characters.
GSM8K = (134, 303, 354, 401, 446, 494, 547, 611, 690, 817, 1699)

FLAGS = flags.FLAGS
flags.DEFINE_enum("size", "small", list(SIZES), "Size of the model.")
flags.DEFINE_integer("row_length", 256, "Tokens a row; with --rationales 512.")
flags.DEFINE_integer("batch_size", 8, "Rows a step.")
flags.DEFINE_integer("steps", 20, "Timed steps; as many come before.")
flags.DEFINE_integer("repeats", 3, "Times that they are timed; the best counts.")
flags.DEFINE_bool("rationales", False, "Rows of examples instead of full rows.")
flags.DEFINE_list("peers", None, "Which to compare. Default: all.")
flags.DEFINE_enum("peer", None, ROWS + RATIONALES, "Run this one alone, print JSON.")


def full_rows():
    vocabulary = SIZES[FLAGS.size][-1]
    rng = np.random.default_rng(0)
    shape = (FLAGS.batch_size, FLAGS.row_length)
    return rng.integers(1, vocabulary, shape, "int32")


def full_batch():
    """A batch of full rows, as `make_row` has them."""
    tokens = full_rows()
    shape = tokens.shape
    x = {
        "token_ids": tokens,
        "padding_mask": np.ones(shape, "int32"),
        "segment_ids": np.ones(shape, "int32"),
        "positions": np.broadcast_to(np.arange(shape[1], dtype="int32"), shape),
    }
    return x, np.roll(tokens, -1, 1), np.ones(shape, "float32")


def make_gpt_j():
    from star_keras.models import GPTJBackbone, GPTJCausalLM

    layers, width, heads, vocabulary = SIZES[FLAGS.size]
    model = GPTJCausalLM(
        GPTJBackbone(
            vocabulary_size=vocabulary,
            num_layers=layers,
            num_heads=heads,
            hidden_dim=width,
            intermediate_dim=4 * width,
            rotary_dim=width // heads // 2,
        )
    )
    return model


def adam():
    import keras

    return keras.optimizers.Adam(1e-4, global_clipnorm=1.0)


def fit_steps(model, batches, row_length):
    """A function that makes `steps` steps of `fit`."""
    import star_keras  # noqa: F401  isort: skip  (selects the backend)
    from star_keras.packing import training_dataset

    dataset = training_dataset(
        batches, batch_size=FLAGS.batch_size, row_length=row_length
    )
    return lambda: model.fit(
        dataset, steps_per_epoch=FLAGS.steps, verbose=0, shuffle=False
    )


def repeat(batch):
    def batches():
        while True:
            yield batch

    return batches


def star_keras(checkpointing=False):
    model = make_gpt_j()
    model.backbone.gradient_checkpointing = checkpointing
    model.compile(adam())
    step = fit_steps(model, repeat(full_batch()), FLAGS.row_length)
    return step, FLAGS.batch_size * FLAGS.row_length


def checkpointing():
    return star_keras(checkpointing=True)


def keras_hub():
    import star_keras  # noqa: F401  isort: skip
    import keras
    import tensorflow as tf
    from keras_hub.models import GPTNeoXBackbone, GPTNeoXCausalLM

    layers, width, heads, vocabulary = SIZES[FLAGS.size]
    model = GPTNeoXCausalLM(
        GPTNeoXBackbone(
            vocabulary_size=vocabulary,
            num_layers=layers,
            num_heads=heads,
            hidden_dim=width,
            intermediate_dim=4 * width,
            max_sequence_length=2048,
        )
    )
    model.compile(
        adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[],
    )
    tokens = full_rows()
    x = {"token_ids": tokens, "padding_mask": np.ones(tokens.shape, "int32")}
    y = np.roll(tokens, -1, 1)
    # As fast as arrays, of which KerasHub makes a dataset, without the autotuning
    # that now and then lets the end of `fit` wait for seconds (`training_dataset`).
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = tf.data.Dataset.from_tensors((x, y)).repeat(FLAGS.steps)
    dataset = dataset.prefetch(2).with_options(options)

    return lambda: model.fit(dataset, verbose=0, shuffle=False), tokens.size


def transformers():
    import torch
    import transformers

    layers, width, heads, vocabulary = SIZES[FLAGS.size]
    model = transformers.GPTJForCausalLM(
        transformers.GPTJConfig(
            vocab_size=vocabulary,
            n_positions=2048,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            rotary_dim=width // heads // 2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
            use_cache=False,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    tokens = torch.tensor(full_rows(), dtype=torch.long)

    def step():
        for _ in range(FLAGS.steps):
            model(input_ids=tokens, labels=tokens).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step, tokens.numel()


def examples():
    from star_keras.packing import TrainingExample

    rng = np.random.default_rng(0)
    vocabulary = SIZES[FLAGS.size][-1]
    lengths = np.interp(rng.random(1000), np.linspace(0, 1, len(GSM8K)), GSM8K) // 4
    found = []
    for length in lengths.astype(int):
        ids = rng.integers(1, vocabulary, length + 1, "int32")
        # As in GSM8K, somewhat less than half is the question.
        cut = length * 2 // 5
        found.append(TrainingExample(prompt_ids=ids[:cut], response_ids=ids[cut:]))
    return found


def packed(row_length=512, several=True):
    from star_keras.packing import make_row, stack_rows, training_batches

    all_examples = examples()
    model = make_gpt_j()
    model.compile(adam())
    if several:

        def batches():
            return training_batches(
                all_examples,
                batch_size=FLAGS.batch_size,
                row_length=row_length,
                pad_id=0,
                seed=(0,),
            )

    else:

        def batches():
            for start in range(0, len(all_examples), FLAGS.batch_size):
                yield stack_rows(
                    [
                        make_row([example], row_length, 0)
                        for example in all_examples[start:][: FLAGS.batch_size]
                    ]
                )

    real = [
        int(x["padding_mask"].sum())
        for (x, _, _), _ in zip(batches(), range(FLAGS.steps), strict=False)
    ]
    return fit_steps(model, batches, row_length), sum(real) / len(real)


def padded():
    longest = max(map(len, examples()))
    return packed(row_length=longest, several=False)


def measure(peer):
    from star_keras.memory import keep_freed_memory

    if peer not in ("keras_hub", "transformers"):
        keep_freed_memory()
    step, tokens = globals()[peer]()
    before = memory_mib("VmRSS")
    seconds = []
    for _ in range(1 + FLAGS.repeats):
        reset_peak()
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    best = min(seconds[1:])
    return {
        "tokens_per_second": tokens * FLAGS.steps / best,
        "step": best / FLAGS.steps,
        "compile": seconds[0] - best,
        "memory": memory_mib("VmHWM") - before,
    }


def main(argv):
    if FLAGS.peer:
        print(json.dumps(measure(FLAGS.peer)))
        return
    names = ["size", "row_length", "batch_size", "steps", "repeats"]
    arguments = [f"--{name}={getattr(FLAGS, name)}" for name in names]
    peers = FLAGS.peers or (RATIONALES if FLAGS.rationales else ROWS)
    layers, width, _, vocabulary = SIZES[FLAGS.size]
    length = FLAGS.row_length
    flops_a_token = (
        3
        * forward_flops(
            layers, width, length, length * (length + 1) / 2, length, vocabulary
        )
        / length
    )
    peak = matmul_peak()
    print(" ".join(arguments), f"(peak {peak / 1e9:.0f} GFLOP/s)", flush=True)
    print(
        f"{'':16} {'tokens/s':>9} {'ours is':>8} {'ms/step':>8} {'of peak':>8} "
        f"{'compile s':>9} {'MiB':>6}"
    )
    first = None
    for peer in peers:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.train", *arguments, f"--peer={peer}"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        speed = found["tokens_per_second"]
        first = first or speed
        share = f"{speed * flops_a_token / peak:8.0%}"
        print(
            f"{peer:16} {speed:9.0f} {first / speed:7.2f}x {1e3 * found['step']:8.0f} "
            f"{'' if FLAGS.rationales else share:>8} {found['compile']:9.1f} "
            f"{found['memory']:6.0f}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
