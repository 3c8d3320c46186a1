"""Sampling speed: `ContinuousSampler` against `generate` of two libraries.

    python -m benchmarks.sample --size=small --prefix_length=768
    python -m benchmarks.sample --family=llama --size=small --prefix_length=768

Many questions behind one few-shot prompt, greedy, with the same weights for all.
Completions have known lengths of 16 to 94 tokens, see `benchmarks.countdown`. All
peers must write the same tokens, which is checked.

Peers, each in a process of its own; `generate` gets the questions sorted by length:
    continuous           `ContinuousSampler`
    keras_hub            KerasHub's `CausalLM.generate` of our `GPTJCausalLM`, or of its
                         own `LlamaCausalLM`
    transformers         `generate` of `GPTJForCausalLM`, left-padded
    transformers_prefix  the same; the prefix is computed once, and its cache
                         copied for each row

Columns:
    tokens/s   tokens of completions, end tokens included
    ours is    speed of the first row against this one
    seconds    time of all questions
    first s    time of the first completions
    CPU s      CPU time of the process
    compile s  extra time of an earlier run (of the peers: of one batch)
    MiB        peak growth of the resident set after the model is made (Linux only)
    of peak    necessary FLOPs (the prefix, each question and each completion, once)
               against the peak, a float32 matrix product of 2048
"""

import functools
import json
import time

from absl import app, flags

from benchmarks import countdown
from benchmarks.comparison import choose, measure_alone
from benchmarks.libraries import load_libraries
from benchmarks.machine import matmul_peak, memory_mib, reset_peak
from benchmarks.models import chosen_size

PEERS = {
    "gpt_j": ("continuous", "keras_hub", "transformers", "transformers_prefix"),
    "llama": ("continuous", "keras_hub"),
}

FLAGS = flags.FLAGS
flags.DEFINE_integer("prefix_length", 768, "Tokens of the few-shot prompt.")
flags.DEFINE_integer("problems", 512, "Questions.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Questions a batch of the peers.")
flags.DEFINE_integer("slots", 128, "Slots of `ContinuousSampler`.")
flags.DEFINE_list("peers", None, "Rows of the table. Default: all that are installed.")
flags.DEFINE_integer(
    "peer_problems",
    None,
    "Questions of the peers, if fewer: whole batches. Batches come one after another, "
    "so tokens/s hardly depends on their number.",
)
flags.DEFINE_enum(
    "peer", None, PEERS["gpt_j"], "Measure this row alone, and print JSON."
)


def continuous(model, prefix, questions):
    """The `sample` of our sampler, see `benchmarks.peers`."""
    from star_keras.sampling import ContinuousSampler, SampleRequest

    tokenizer = model.preprocessor.tokenizer
    sampler = ContinuousSampler(
        model, max_new_tokens=countdown.LONGEST_COMPLETION, batch_size=FLAGS.slots
    )
    shared = tokenizer.detokenize(prefix) if prefix else ""
    requests = [
        SampleRequest(
            prompt=shared + tokenizer.detokenize(question), name=str(i), prefix=shared
        )
        for i, question in enumerate(questions)
    ]

    def sample(count):
        for batch in sampler.sample(requests[:count]):
            texts = [completion.text for _, completion in batch]
            yield [
                (i, [*map(int, ids), 0])
                for (i, _), ids in zip(batch, tokenizer(texts), strict=True)
            ]

    return sample


def load_row(name):
    """Import the libraries of a row.

    Returns:
        A function `(model, prefix, questions)` that returns the `sample` of the row,
        see `benchmarks.peers`.
    """
    if name == "continuous":
        load_libraries()
        return continuous
    if name == "keras_hub":
        load_libraries(keep_memory=False)
        from benchmarks.peers.keras_hub import make_sampler
    else:
        from benchmarks.peers.transformers import make_sampler

        reuse_prefix = name == "transformers_prefix"
        make_sampler = functools.partial(make_sampler, reuse_prefix=reuse_prefix)
        load_libraries(keep_memory=False)
    return functools.partial(make_sampler, batch_size=FLAGS.batch_size)


def measure(name):
    """Measurements of one row, as JSON.

    Raises:
        RuntimeError: if a completion is not the expected one.
    """
    ours, size = name == "continuous", chosen_size()
    make_sample = load_row(name)
    prefix, questions = countdown.make_problems(FLAGS.prefix_length, FLAGS.problems)
    model = countdown.make_model(size, FLAGS.prefix_length)
    sample = make_sample(model, prefix, questions)
    before = memory_mib("VmRSS")
    count, warm_up = FLAGS.problems, FLAGS.problems
    if not ours:
        # The peers compile with the first batch.
        count, warm_up = min(count, FLAGS.peer_problems or count), FLAGS.batch_size
    _, warm_up_seconds, _ = run(sample, min(warm_up, FLAGS.problems))
    reset_peak()
    cpu_start = time.process_time()
    completions, seconds, first = run(sample, count)
    cpu = time.process_time() - cpu_start
    for i, question in enumerate(questions[:count]):
        expected = countdown.expected_completion(question)
        if completions[i] != expected:
            raise RuntimeError(f"Expected {expected}. Received: {completions[i]}.")
    return {
        "tokens": sum(map(len, completions.values())),
        "flops": countdown.needed_flops(size, prefix, questions[:count]),
        "seconds": seconds,
        "first": first,
        "cpu": cpu,
        "compile": warm_up_seconds - (seconds if ours else first),
        "memory": memory_mib("VmHWM") - before,
    }


def run(sample, count):
    """Sample `count` completions.

    Returns:
        A dict of completions by question, the seconds of all, and the seconds of
        the first batch.
    """
    completions, first = {}, None
    start = time.perf_counter()
    for batch in sample(count):
        if first is None:
            first = time.perf_counter() - start
        completions.update(batch)
    return completions, time.perf_counter() - start, first


def main(argv):
    if FLAGS.peer:
        print(json.dumps(measure(FLAGS.peer)))
        return
    chosen_size()  # an error before the first row
    peers = choose(PEERS[FLAGS.family], FLAGS.peers)
    names = ["family", "size", "prefix_length", "problems", "batch_size", "slots"]
    if FLAGS.peer_problems:
        names.append("peer_problems")
    arguments = [f"--{name}={getattr(FLAGS, name)}" for name in names]
    peak = matmul_peak()
    print(" ".join(arguments), f"(peak {peak / 1e9:.0f} GFLOP/s)", flush=True)
    print(
        f"{'':20} {'tokens/s':>9} {'ours is':>8} {'seconds':>8} {'first s':>8} "
        f"{'CPU s':>8} {'compile s':>9} {'MiB':>6} {'of peak':>8}"
    )
    ours = None
    for peer in peers:
        found = measure_alone("benchmarks.sample", arguments, peer)
        speed = found["tokens"] / found["seconds"]
        ours = ours or speed
        print(
            f"{peer:20} {speed:9.0f} {ours / speed:7.1f}x {found['seconds']:8.1f} "
            f"{found['first']:8.1f} {found['cpu']:8.1f} {found['compile']:9.1f} "
            f"{found['memory']:6.0f} {found['flops'] / found['seconds'] / peak:8.1%}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
