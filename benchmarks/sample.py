"""Sampling speed: `ContinuousSampler` against other libraries.

    python -m benchmarks.sample --size=small --prefix_length=768
    python -m benchmarks.sample --family=llama --size=small --prefix_length=768

Many questions behind one few-shot prompt, greedy, with the same weights for all.
Completions have known lengths of 16 to 94 tokens, see `benchmarks.countdown`. All
peers must write the same tokens, which is checked.

Peers, each in a process of its own; `generate` gets the questions sorted by length:
    continuous           `ContinuousSampler`
    keras_hub            KerasHub's `CausalLM.generate` of our `GPTJCausalLM`, or of its
                         own `LlamaCausalLM`
    transformers         `generate` of transformers, left-padded
    transformers_prefix  the same; the prefix is computed once, and its cache
                         copied for each row
    vllm                 `LLM.generate` of vLLM for CPUs, with prefix caching and as
                         many sequences at a time as ours has slots
    llama_cpp            llama.cpp, 16 sequences at a time, whose caches share the
                         prefix

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
import tempfile

from absl import app, flags

from benchmarks import countdown
from benchmarks.comparison import ALONE, choose, measure_alone, measure_peer
from benchmarks.libraries import load_libraries
from benchmarks.machine import matmul_peak
from benchmarks.measurements import measure_sampling
from benchmarks.models import chosen_size

ROWS = ("continuous", "keras_hub", *ALONE)
# Peers that fill a slot as soon as it is free, like ours.
CONTINUOUS = ("vllm", "llama_cpp")
# vLLM has a GPT-J, but not for CPUs; llama.cpp has none.
PEERS = {"gpt_j": ROWS[:4], "llama": ROWS}

FLAGS = flags.FLAGS
flags.DEFINE_integer("prefix_length", 768, "Tokens of the few-shot prompt.")
flags.DEFINE_integer("problems", 512, "Questions.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Questions a batch of the peers.")
flags.DEFINE_integer("slots", 128, "Slots of `ContinuousSampler`.")
flags.DEFINE_list("peers", None, "Rows of the table. Default: all that are installed.")
flags.DEFINE_integer(
    "peer_problems",
    None,
    "Questions of the peers that decode whole batches, if fewer. Batches come one "
    "after another, so tokens/s hardly depends on their number.",
)
flags.DEFINE_enum("peer", None, ROWS[:2], "Measure this row alone, and print JSON.")


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


def measure(name):
    """Measurements of a row of Keras."""
    ours = name == "continuous"
    load_libraries(keep_memory=ours)
    if ours:
        make_sampler = continuous
    else:
        from benchmarks.peers.keras_hub import make_sampler

        make_sampler = functools.partial(make_sampler, batch_size=FLAGS.batch_size)
    model = countdown.make_model(chosen_size(), FLAGS.prefix_length)
    sample = make_sampler(model, *problems())
    return measure_sampling(sample, *counts(name), compiles_at_once=not ours)


def problems():
    return countdown.make_problems(FLAGS.prefix_length, FLAGS.problems)


def counts(name):
    """Questions of a row, and of the run before."""
    count = FLAGS.problems
    if name in ("continuous", *CONTINUOUS):
        return count, count
    # The peers compile with the first batch.
    return min(count, FLAGS.peer_problems or count), min(FLAGS.batch_size, count)


def save_model(directory):
    """Write a Hugging Face directory for the rows of other libraries."""
    load_libraries()
    from star_keras.models import save_hugging_face

    model = countdown.make_model(chosen_size(), FLAGS.prefix_length)
    save_hugging_face(model, directory)


def job(name):
    """The `job.json` of a row, see `benchmarks.peers`."""
    prefix, questions = problems()
    count, warm_up = counts(name)
    return {
        "peer": name,
        "work": "sample",
        "prefix": prefix,
        "questions": questions,
        "batch_size": FLAGS.slots if name in CONTINUOUS else FLAGS.batch_size,
        "count": count,
        "warm_up": warm_up,
    }


def check(completions):
    """Completions of a row must be the expected ones.

    Raises:
        RuntimeError: if one is not.
    """
    _, questions = problems()
    for i, completion in completions:
        expected = countdown.expected_completion(questions[i])
        if completion != expected:
            raise RuntimeError(f"Expected {expected}. Received: {completion}.")


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
    prefix, questions = problems()
    ours = None
    directory = tempfile.TemporaryDirectory()
    if not ALONE.keys().isdisjoint(peers):
        save_model(directory.name)
    for peer in peers:
        if peer in ALONE:
            found = measure_peer(directory.name, job(peer))
        else:
            found = measure_alone("benchmarks.sample", arguments, peer)
        check(found["completions"])
        answered = [questions[i] for i, _ in found["completions"]]
        flops = countdown.needed_flops(chosen_size(), prefix, answered)
        tokens = sum(len(completion) for _, completion in found["completions"])
        speed = tokens / found["seconds"]
        ours = ours or speed
        print(
            f"{peer:20} {speed:9.0f} {ours / speed:7.1f}x {found['seconds']:8.1f} "
            f"{found['first']:8.1f} {found['cpu']:8.1f} {found['compile']:9.1f} "
            f"{found['memory']:6.0f} {flops / found['seconds'] / peak:8.1%}",
            flush=True,
        )


if __name__ == "__main__":
    app.run(main)
