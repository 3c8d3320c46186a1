"""Processor time of drawing a token of each row at a temperature.

    python -m benchmarks.draws [--rows=64] [--sizes=50400,151936]

Each row has a random key of its own, so that a completion does not depend on its batch.
    ours         `Temperature.next_token`
    cumsum       the same without blocks: running sums over the whole vocabulary
    categorical  `jax.random.categorical`, a random number for each token
A column is the least CPU time of a call, in milliseconds, of 10.
"""

import time

from absl import app, flags

from benchmarks.libraries import load_libraries

FLAGS = flags.FLAGS
flags.DEFINE_integer("rows", 64, "Rows of a batch.")
flags.DEFINE_list("sizes", ["50400", "151936"], "Tokens of the vocabulary.")


def methods():
    """Functions `(logits, key_data, token_number) -> tokens` by their names."""
    import jax
    from jax import numpy as jnp

    from star_keras.sampling.sampling_methods import Temperature

    def keys(key_data, token_number):
        wrapped = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        return jax.vmap(jax.random.fold_in)(wrapped, token_number)

    def cumsum(logits, key_data, token_number):
        uniform = jax.vmap(jax.random.uniform)(keys(key_data, token_number))
        top = jnp.max(logits, axis=-1, keepdims=True)
        sums = jnp.cumsum(jnp.exp((logits - top) / 0.8), axis=-1)
        return jnp.sum(sums < (1 - uniform)[:, None] * sums[:, -1:], axis=-1)

    def categorical(logits, key_data, token_number):
        draw = jax.vmap(jax.random.categorical)
        return draw(keys(key_data, token_number), logits / 0.8)

    ours = Temperature(0.8).next_token
    return {"ours": ours, "cumsum": cumsum, "categorical": categorical}


def main(argv):
    load_libraries()
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    rows = FLAGS.rows
    key_data = rng.integers(0, 2**32, (rows, 2), "uint32")
    token_number = np.zeros(rows, "int32")
    compiled = {name: jax.jit(method) for name, method in methods().items()}
    print(f"{rows} rows", *(f"{name:>12}" for name in compiled))
    for size in map(int, FLAGS.sizes):
        logits = jax.device_put(3 * rng.standard_normal((rows, size), "float32"))
        times = {name: [] for name in compiled}
        for _ in range(11):
            for name, method in compiled.items():
                start = time.process_time()
                jax.block_until_ready(method(logits, key_data, token_number))
                times[name].append(1000 * (time.process_time() - start))
        # The first call compiles.
        least = (min(column[1:]) for column in times.values())
        print(f"{size:7,}", *(f"{milliseconds:12.2f}" for milliseconds in least))


if __name__ == "__main__":
    app.run(main)
