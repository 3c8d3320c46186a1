"""Temporary memory of a training step by XLA's own account, ours against `fit`'s.

    python -m benchmarks.train_memory --family=llama --size=large_vocabulary

Steps of 8 rows of 1,024 tokens with Adam, compiled for one CPU and never run, since the
models have shapes and no values. Rows of the table:
    keras_hub      `fit` of the stock model
    star_keras     `fit` of the same model after `packed_causal_lm`
    checkpointing  the same with gradient checkpointing

Columns:
    MiB      temporaries of the compiled step; weights, moments and the batch apart
    of fit's share of the first row's
"""

from absl import app, flags

from benchmarks.models import adam, chosen_size

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 8, "Rows a step.")
flags.DEFINE_integer("sequence_length", 1024, "Tokens a row.")


def make_model(peer):
    """The compiled model of a row, with a built optimizer."""
    if peer == "keras_hub":
        from benchmarks.peers.keras_hub import make_trained_model

        model = make_trained_model(chosen_size())
    else:
        from star_keras.models import packed_causal_lm

        model = packed_causal_lm(chosen_size().make_model())
        model.compile(adam(), gradient_checkpointing=peer == "checkpointing")
    model.optimizer.build(model.trainable_variables)
    return model


def temporary_mib(peer):
    """MiB that a compiled step takes besides its arguments and results."""
    import star_keras  # noqa: F401  isort: skip  (selects the backend)
    import keras

    from star_keras.distribution import model_parallel
    from star_keras.planning import from_shapes, lower_train_step

    keras.distribution.set_distribution(model_parallel("batch:1"))
    model = from_shapes(lambda: make_model(peer))
    step = lower_train_step(model, FLAGS.batch_size, FLAGS.sequence_length)
    return step.compile().memory_analysis().temp_size_in_bytes / 2**20


def main(argv):
    print(
        f"--family={FLAGS.family} --size={FLAGS.size} --batch_size={FLAGS.batch_size} "
        f"--sequence_length={FLAGS.sequence_length}\n{'':16} {'MiB':>8} {'of fit':>7}",
        flush=True,
    )
    first = None
    for peer in ("keras_hub", "star_keras", "checkpointing"):
        found = temporary_mib(peer)
        first = first or found
        print(f"{peer:16} {found:8,.0f} {found / first:7.1%}", flush=True)


if __name__ == "__main__":
    app.run(main)
