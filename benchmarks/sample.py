"""Sampling speed: ContinuousSampler against `generate` of two libraries.

    python -m benchmarks.sample --size=small --prefix_length=768

Many questions behind one few-shot prompt, greedy, with the same weights for
all. The weights are random except for what makes every completion stop by
itself after a known number of tokens: blocks add little to the residual
stream, and the head answers the token `k` with `k - 1`, of which 0 is the end
token. So the last token of a question, 16 to 94, is the length of its
completion, and all peers must write the same, which is checked. What is
computed does not depend on the weights.

Peers, each in a process of its own, questions sorted by length for the two
that decode fixed batches:
    continuous        ContinuousSampler
    keras_hub         KerasHub's `CausalLM.generate` of our GPTJCausalLM
    transformers      `generate` of GPTJForCausalLM, left-padded
    transformers_prefix  the same, the prefix computed once and its cache
                      copied for each row

Useful tokens are those up to the end token. `first` is the time until the first
completions are there. Compile time is what a run before (of the peers: a batch)
took longer; memory is the growth of the resident set over what it was with the
model loaded (Linux only). `of peak` is the share that the FLOPs which nobody can
do without (the prefix once, each question, each useful token) have of the machine's
float32 matrix product of 2048.
"""

import json
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

from benchmarks.machine import forward_flops, matmul_peak, memory_mib, reset_peak

PEERS = ("continuous", "keras_hub", "transformers", "transformers_prefix")
SIZES = {  # layers, width, heads, vocabulary
    "tiny": (1, 64, 2, 512),
    "small": (4, 256, 4, 512),
    "base": (12, 768, 12, 50400),
}
LONGEST = 96

FLAGS = flags.FLAGS
flags.DEFINE_enum("size", "small", list(SIZES), "Size of the model.")
flags.DEFINE_integer("prefix_length", 768, "Tokens of the few-shot prompt.")
flags.DEFINE_integer("problems", 512, "Questions.")
flags.DEFINE_integer("batch_size", 64, "Rows that the peers decode together.")
flags.DEFINE_integer("slots", 128, "Rows that ContinuousSampler decodes together.")
flags.DEFINE_list("peers", list(PEERS), "Which to compare.")
flags.DEFINE_integer(
    "peer_problems",
    None,
    "Questions that the peers answer, if fewer: whole batches. Those come one after "
    "another, so tokens a second hardly depend on their number.",
)
flags.DEFINE_enum("peer", None, PEERS, "Run this one alone and print JSON.")


def make_problems():
    """Token ids of the prefix, and of 24 to 48 tokens a question."""
    rng = np.random.default_rng(0)
    # Letters and digits alone: white space at the end of the prefix would
    # move to the questions.
    prefix = rng.integers(16, 95, FLAGS.prefix_length).tolist()
    questions = [
        rng.integers(16, 95, rng.integers(24, 49)).tolist()
        for _ in range(FLAGS.problems)
    ]
    return prefix, questions


def needed_flops(prefix, questions):
    """FLOPs of the prefix, the questions and the useful tokens, each once."""
    layers, width, _, vocabulary = SIZES[FLAGS.size]
    tokens, attended = len(prefix), len(prefix) ** 2 / 2
    sampled = 0
    for question in questions:
        new = len(question) + question[-1]
        tokens += new
        attended += new * len(prefix) + new**2 / 2
        sampled += question[-1]
    return forward_flops(layers, width, tokens, attended, sampled, vocabulary)


# When the first completions of a run were there.
first_seen = []


def make_model():
    import star_keras  # noqa: F401  isort: skip  (selects the backend)
    import keras
    from tokenizers import pre_tokenizers

    from star_keras.models import (
        GPTJBackbone,
        GPTJCausalLM,
        GPTJCausalLMPreprocessor,
        GPTJTokenizer,
    )

    keras.utils.set_random_seed(0)
    layers, width, heads, vocabulary_size = SIZES[FLAGS.size]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|endoftext|>", *alphabet, "qz"]
    tokenizer = GPTJTokenizer(
        vocabulary={token: i for i, token in enumerate(tokens)}, merges=["q z"]
    )
    model = GPTJCausalLM(
        GPTJBackbone(
            vocabulary_size=vocabulary_size,
            num_layers=layers,
            num_heads=heads,
            hidden_dim=width,
            intermediate_dim=4 * width,
            rotary_dim=width // heads // 2,
        ),
        GPTJCausalLMPreprocessor(
            tokenizer, sequence_length=FLAGS.prefix_length + 48 + LONGEST
        ),
    )
    for layer in model.backbone.transformer_layers:
        for output in (
            layer.self_attention.attention_output,
            layer.feedforward_output_dense,
        ):
            output.kernel.assign(0.01 * output.kernel)
    embeddings = np.asarray(model.backbone.token_embedding.embeddings)
    kernel = 0.1 * np.asarray(model.lm_head.kernel)
    kernel[:, :LONGEST] = embeddings[1 : LONGEST + 1].T
    model.lm_head.kernel.assign(kernel)
    return model


def to_transformers(model):
    import torch
    import transformers

    layers, width, heads, vocabulary_size = SIZES[FLAGS.size]
    peer = transformers.GPTJForCausalLM(
        transformers.GPTJConfig(
            vocab_size=vocabulary_size,
            n_positions=model.backbone.max_sequence_length,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            rotary_dim=model.backbone.rotary_dim,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
    ).eval()
    state = {}

    def add(name, array, transpose=False):
        array = np.asarray(array)
        state[name] = torch.tensor(array.T if transpose else array)

    def add_layer(name, layer):
        scale = layer.gamma if hasattr(layer, "gamma") else layer.kernel
        add(f"{name}.weight", scale, transpose=scale.ndim == 2)
        add(f"{name}.bias", layer.beta if hasattr(layer, "beta") else layer.bias)

    backbone = model.backbone
    add("transformer.wte.weight", backbone.token_embedding.embeddings)
    for i, layer in enumerate(backbone.transformer_layers):
        name, attention = f"transformer.h.{i}", layer.self_attention
        add_layer(f"{name}.ln_1", layer.layer_norm)
        for letter, projection in (
            ("q", attention.query),
            ("k", attention.key),
            ("v", attention.value),
        ):
            kernel = np.asarray(projection.kernel).reshape(width, width)
            add(f"{name}.attn.{letter}_proj.weight", kernel, transpose=True)
        kernel = np.asarray(attention.attention_output.kernel).reshape(width, width)
        add(f"{name}.attn.out_proj.weight", kernel, transpose=True)
        add_layer(f"{name}.mlp.fc_in", layer.feedforward_intermediate_dense)
        add_layer(f"{name}.mlp.fc_out", layer.feedforward_output_dense)
    add_layer("transformer.ln_f", backbone.layer_norm)
    add_layer("lm_head", model.lm_head)
    peer.load_state_dict(state, strict=True)
    return peer


# === Peers: each makes a function that samples for some of the questions ===


def continuous(model, prefix, questions):
    from star_keras.sampling import ContinuousSampler, SampleRequest

    tokenizer = model.preprocessor.tokenizer
    sampler = ContinuousSampler(model, max_new_tokens=LONGEST, batch_size=FLAGS.slots)
    shared = tokenizer.detokenize(prefix) if prefix else ""
    requests = [
        SampleRequest(
            prompt=shared + tokenizer.detokenize(question), name=str(i), prefix=shared
        )
        for i, question in enumerate(questions)
    ]

    def sample(count):
        done = {}
        for batch in sampler.sample(requests[:count]):
            first_seen.append(time.perf_counter())
            done.update(batch)
        texts = [done[i].text for i in range(count)]
        return [[*map(int, ids), 0] for ids in tokenizer(texts)]

    return sample


def batches(questions, count):
    order = sorted(range(count), key=lambda i: len(questions[i]))
    for start in range(0, len(order), FLAGS.batch_size):
        yield order[start : start + FLAGS.batch_size]


def keras_hub(model, prefix, questions):
    model.preprocessor = None  # token ids in, token ids out
    model.compile(sampler="greedy")
    length = len(prefix) + 48 + LONGEST

    def sample(count):
        done = {}
        for batch in batches(questions, count):
            token_ids = np.zeros((len(batch), length), "int32")
            mask = np.zeros((len(batch), length), "int32")
            for row, i in enumerate(batch):
                prompt = prefix + questions[i]
                token_ids[row, : len(prompt)] = prompt
                mask[row, : len(prompt)] = 1
            output = model.generate(
                {"token_ids": token_ids, "padding_mask": mask}, stop_token_ids=[0]
            )
            first_seen.append(time.perf_counter())
            for row, i in enumerate(batch):
                new = np.asarray(output["token_ids"][row])[
                    len(prefix + questions[i]) :
                ].tolist()
                done[i] = new[: new.index(0) + 1]
        return [done[i] for i in range(count)]

    return sample


def transformers(model, prefix, questions, reuse_prefix=False):
    import copy

    import torch

    peer = to_transformers(model)

    @torch.inference_mode()
    def sample(count):
        done = {}
        if reuse_prefix:
            shared = peer(torch.tensor([prefix]), use_cache=True).past_key_values
        for batch in batches(questions, count):
            longest = max(len(questions[i]) for i in batch)
            token_ids, mask = [], []
            for i in batch:
                pad = longest - len(questions[i])
                # Padding may stand between the prefix and the question too.
                if reuse_prefix:
                    token_ids.append(prefix + [0] * pad + questions[i])
                    mask.append([1] * len(prefix) + [0] * pad + [1] * len(questions[i]))
                else:
                    token_ids.append([0] * pad + prefix + questions[i])
                    mask.append([0] * pad + [1] * len(prefix + questions[i]))
            arguments = {}
            if reuse_prefix:
                cache = copy.deepcopy(shared)
                cache.batch_repeat_interleave(len(batch))
                arguments["past_key_values"] = cache
            output = peer.generate(
                torch.tensor(token_ids),
                attention_mask=torch.tensor(mask),
                do_sample=False,
                max_new_tokens=LONGEST,
                **arguments,
            )
            first_seen.append(time.perf_counter())
            for row, i in enumerate(batch):
                new = output[row, len(token_ids[0]) :].tolist()
                done[i] = new[: new.index(0) + 1]
        return [done[i] for i in range(count)]

    return sample


def transformers_prefix(model, prefix, questions):
    return transformers(model, prefix, questions, reuse_prefix=True)


# === Measuring ===


def measure(peer):
    from star_keras.memory import keep_freed_memory

    if peer == "continuous":
        keep_freed_memory()
    prefix, questions = make_problems()
    sample = globals()[peer](make_model(), prefix, questions)
    before = memory_mib("VmRSS")
    count, warm_up = FLAGS.problems, FLAGS.problems
    if peer != "continuous":
        # The peers compile with the first batch.
        count, warm_up = min(count, FLAGS.peer_problems or count), FLAGS.batch_size
    start = time.perf_counter()
    sample(warm_up)
    warm_up_seconds = time.perf_counter() - start
    first_seen.clear()
    reset_peak()
    start, cpu_start = time.perf_counter(), time.process_time()
    completions = sample(count)
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu_start
    first = first_seen[0] - start
    for question, completion in zip(questions[:count], completions, strict=True):
        expected = list(range(question[-1] - 1, -1, -1))
        if completion != expected:
            raise RuntimeError(f"Expected {expected}. Received: {completion}.")
    return {
        "tokens": sum(map(len, completions)),
        "flops": needed_flops(prefix, questions[:count]),
        "seconds": seconds,
        "first": first,
        "cpu": cpu,
        "compile": warm_up_seconds - (seconds if peer == "continuous" else first),
        "memory": memory_mib("VmHWM") - before,
    }


def main(argv):
    if FLAGS.peer:
        print(json.dumps(measure(FLAGS.peer)))
        return
    names = ("size", "prefix_length", "problems", "batch_size", "slots")
    if FLAGS.peer_problems:
        names += ("peer_problems",)
    arguments = [f"--{name}={getattr(FLAGS, name)}" for name in names]
    peak = matmul_peak()
    print(" ".join(arguments), f"(peak {peak / 1e9:.0f} GFLOP/s)", flush=True)
    print(
        f"{'':20} {'tokens/s':>9} {'ours is':>8} {'seconds':>8} {'first s':>8} "
        f"{'CPU s':>8} {'compile s':>9} {'MiB':>6} {'of peak':>8}"
    )
    ours = None
    for peer in FLAGS.peers:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sample", *arguments, f"--peer={peer}"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
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
