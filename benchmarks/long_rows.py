"""Memory and time of attention without a kernel in long rows: blocks, all scores.

    python -m benchmarks.long_rows

Outputs and gradients of one row with 2 key-value heads of 64 numbers and 4 query heads,
in float32. Columns:
    MiB        temporaries of the compiled program, by XLA's own account
    CPU s      processor time of a call, the least of three
    compile s  processor time of the compilation
"""

import functools
import time

from absl import app, flags

from benchmarks.libraries import load_libraries

FLAGS = flags.FLAGS
flags.DEFINE_list("lengths", ["2048", "4096", "8192"], "Tokens a row.")
flags.DEFINE_integer("sliding_window", None, "Tokens that a query sees.")


def measure(attend, length):
    """MiB, CPU seconds and CPU seconds of the compilation."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, 2, 2, length, 64)).astype("float32")
    key, value = rng.normal(size=(2, 1, 2, length, 64)).astype("float32")
    segment_ids = np.sort(rng.integers(0, 4, (1, length)), axis=1)

    def loss(query, key, value):
        outputs = attend(query, key, value, segment_ids, scale=0.125)
        return (outputs**2).sum(), outputs

    start = time.process_time()
    gradient = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
    compute = jax.jit(gradient).lower(query, key, value).compile()
    compiled = time.process_time() - start
    seconds = []
    for _ in range(3):
        start = time.process_time()
        jax.block_until_ready(compute(query, key, value))
        seconds.append(time.process_time() - start)
    temporaries = compute.memory_analysis().temp_size_in_bytes
    return temporaries / 2**20, min(seconds), compiled


def main(argv):
    load_libraries()
    from jax import numpy as jnp

    from star_keras.models.attention import attend_causally
    from star_keras.models.attention_in_blocks import attend_rows_in_blocks

    window = FLAGS.sliding_window

    def all_scores(query, key, value, segment_ids, scale):
        places = jnp.arange(query.shape[3])
        distance = places[:, None] - places
        mask = (distance >= 0) & (distance < (window or len(places)))
        mask = mask & (segment_ids[:, :, None] == segment_ids[:, None])
        return attend_causally(query, key, value, mask, scale=scale).outputs()

    in_blocks = functools.partial(attend_rows_in_blocks, sliding_window=window)
    print(f"{'tokens':>6} {'':10} {'MiB':>8} {'CPU s':>6} {'compile s':>9}", flush=True)
    for length in map(int, FLAGS.lengths):
        for name, attend in (("all scores", all_scores), ("blocks", in_blocks)):
            mib, seconds, compiled = measure(attend, length)
            print(
                f"{length:6} {name:10} {mib:8,.1f} {seconds:6.2f} {compiled:9.1f}",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
