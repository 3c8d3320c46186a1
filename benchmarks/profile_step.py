"""Where the time of a training step goes, by kind of operation.

    python -m benchmarks.profile_step --size=small --row_length=256

The model and rows of `benchmarks.train`, by its flags `size`, `row_length`,
`batch_size` and `steps`; the compiled step runs in a loop under `jax.profiler`.
`ms` is what the operations of a kind take a step, from the start to the end of
each. Operations run beside each other, and one that waits for a thread counts
all the same, so kinds make more together than the step: read them as shares. A
fused operation counts as what XLA names it after; the first product of attention
is fused with the softmax behind it.
"""

import collections
import re
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import train
from benchmarks.machine import matmul_peak

FLAGS = flags.FLAGS

# The first that fits an operation's name, which holds the layers it is of.
KINDS = (
    ("optimizer", "adam"),
    ("attention: products", "bhqd,bhkd->bhqk/|bhqk,bhkd->bhqd/"),
    ("attention: softmax", "self_attention/cond"),
    ("products with weights", "dot_general"),
    ("rotary positions, transpositions", "self_attention"),
    ("LayerNorm", "layer_norm"),
    ("MLP: activation", "transformer_layer"),
)


def kind_of(name):
    for kind, pattern in KINDS:
        if re.search(pattern, name):
            return kind
    return "other"


def operation_seconds(directory):
    """Seconds of each operation of XLA in a trace: a dict by its name."""
    import jax

    seconds = collections.Counter()
    for path in Path(directory).rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    if "hlo_op" in dict(event.stats):
                        seconds[event.name] += event.duration_ns / 1e9
    return seconds


def main(argv):
    from star_keras.memory import keep_freed_memory

    keep_freed_memory()
    import jax

    peak = matmul_peak()
    model = train.make_gpt_j()
    model.compile(train.adam())
    data = train.full_batch()
    model.train_on_batch(*data)  # makes the optimizer's variables
    state = tuple(
        [jax.numpy.copy(v.value) for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    step = jax.jit(model.train_step, donate_argnums=0).lower(state, data).compile()
    names = dict(re.findall(r'%?([\w.\-]+) = .*?op_name="([^"]*)"', step.as_text()))

    def run():
        nonlocal state
        start = time.perf_counter()
        for _ in range(FLAGS.steps):
            _, state = step(state, data)
            jax.block_until_ready(state)
        return (time.perf_counter() - start) / FLAGS.steps

    run()
    seconds = run()  # without the profiler, which slows the host
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            run()
        found = operation_seconds(directory)
    flops = step.cost_analysis()["flops"]
    print(
        f"--size={FLAGS.size} --row_length={FLAGS.row_length} "
        f"--batch_size={FLAGS.batch_size} (peak {peak / 1e9:.0f} GFLOP/s): "
        f"{1e3 * seconds:.0f} ms/step, {flops / 1e9:.1f} GFLOP, "
        f"{1e3 * flops / peak:.0f} ms at the peak"
    )
    kinds = collections.Counter()
    for name, value in found.items():
        kinds[kind_of(names.get(name, name))] += value
    for kind, value in kinds.most_common():
        print(f"{1e3 * value / FLAGS.steps:8.1f} {value / kinds.total():4.0%} {kind}")


if __name__ == "__main__":
    app.run(main)
