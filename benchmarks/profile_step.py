"""Time of a training step by kind of operation.

    python -m benchmarks.profile_step --size=small --sequence_length=256

Model, rows and the flags `family`, `size`, `sequence_length`, `batch_size` and `steps`
are those of `benchmarks.train`. The compiled step runs in a loop under `jax.profiler`.
Columns: milliseconds a step from the start to the end of each operation, their share,
and the kind.

Operations run beside each other, and the wait for a thread counts, so the
milliseconds add up to more than the step: read the shares. A fused operation counts
as its name in XLA says; the first product of attention is fused with the softmax.
"""

import collections
import re
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import train
from benchmarks.libraries import load_libraries
from benchmarks.machine import matmul_peak
from benchmarks.models import adam
from benchmarks.training_rows import full_batch

FLAGS = flags.FLAGS

# The first that fits an operation's name, which holds the layers it is of.
KINDS = (
    ("optimizer", "adam"),
    ("attention: products", "bhqd,bhkd->bhqk/|bhqk,bhkd->bhqd/"),
    ("attention: softmax", "self_attention/cond"),
    ("products with weights", "dot_general"),
    ("LayerNorm", "layer_?norm"),
    ("rotary positions, transpositions", "self_attention"),
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
    load_libraries()
    import jax

    peak = matmul_peak()
    model = train.make_packed_model()
    model.compile(adam())
    data = full_batch(train.full_rows())
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
        f"--family={FLAGS.family} --size={FLAGS.size} "
        f"--sequence_length={train.sequence_length()} "
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
