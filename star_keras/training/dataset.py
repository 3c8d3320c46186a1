"""The dataset that `fit` trains on: an endless stream of packed batches."""

import itertools
import weakref
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from star_keras.config import TrainingConfig
from star_keras.training.examples import TrainingExample
from star_keras.training.packing import check_row_lengths, make_row, pack, stack_rows
from star_keras.training.stored_examples import example_lengths
from star_keras.utils.settings import checked_setting


def training_batches(
    examples: Sequence[TrainingExample],
    *,
    batch_size: int,
    sequence_length: int,
    pad_id: int,
    seed: Iterable[int],
    packed: bool = True,
    start: int = 0,
    paired: bool = False,
) -> Iterator[tuple]:
    """An endless stream of training batches.

    A pass has every example once, in an order of its own. The last rows of a pass
    share a batch with the first rows of the next pass. Without examples every batch
    has weight zero.

    Args:
        examples: The training examples.
        batch_size: Rows a batch.
        sequence_length: Tokens a row.
        pad_id: Token id of the padding.
        seed: Ints that determine the order.
        packed: Whether to pack several examples into a row. Without packing, batches
            have no `segment_ids` and `positions`.
        start: Batches to leave out at the beginning of the stream.
        paired: Whether examples 0 and 1, 2 and 3 and so on are pairs, which stay
            together in a row, see `make_row`. Needs `packed`.

    Yields:
        `(x, y, sample_weight)` as in `make_row`, each array of shape
        `(batch_size, sequence_length)`.

    Raises:
        ValueError: if `batch_size` or `sequence_length` is no integer of at least 1,
            or an example is longer than a row.
    """
    batch_size = checked_setting(TrainingConfig, "batch_size", batch_size)
    sequence_length = checked_setting(
        TrainingConfig, "sequence_length", sequence_length
    )
    size = 2 if paired else 1
    lengths = _lengths(examples, size, sequence_length)
    groups = _groups(lengths, sequence_length, seed, packed)
    waiting = []
    for group in itertools.islice(groups, start * batch_size, None):
        chosen = [examples[size * i + part] for i in group for part in range(size)]
        row = make_row(chosen, sequence_length, pad_id, paired=paired)
        if not packed:
            del row[0]["segment_ids"], row[0]["positions"]
        waiting.append(row)
        if len(waiting) == batch_size:
            yield stack_rows(waiting)
            waiting = []


def count_trained_tokens(
    examples: Sequence[TrainingExample],
    steps: int,
    *,
    batch_size: int,
    sequence_length: int,
    seed: Iterable[int],
    packed: bool = True,
    paired: bool = False,
) -> int:
    """The tokens of the first batches of `training_batches`, without padding.

    Args:
        examples: The training examples.
        steps: The number of batches.
        batch_size, sequence_length, seed, packed, paired: See `training_batches`.

    Raises:
        ValueError: if an example is longer than a row.
    """
    lengths = _lengths(examples, 2 if paired else 1, sequence_length)
    groups = _groups(lengths, sequence_length, seed, packed)
    rows = itertools.islice(groups, steps * batch_size)
    return sum(lengths[i] for group in rows for i in group)


def _lengths(examples, size, sequence_length):
    """Tokens of each example, or of each pair.

    Checked here, where an example still has the number that the error names.
    """
    lengths = np.reshape(example_lengths(examples), (-1, size)).sum(axis=1).tolist()
    check_row_lengths(lengths, sequence_length, "pairs" if size == 2 else "examples")
    return lengths


def _groups(lengths, sequence_length, seed, packed) -> Iterator[list[int]]:
    """The examples of each row, an endless stream: indices into `lengths`."""
    generator = np.random.default_rng(list(seed))
    while True:
        # Each pass packs other examples together.
        order = generator.permutation(len(lengths)).tolist()
        if packed:
            groups = pack([lengths[i] for i in order], sequence_length)
        else:
            groups = [[i] for i in range(len(order))]
        groups = groups or [[]]
        for g in generator.permutation(len(groups)):
            yield [order[i] for i in groups[g]]


def evaluation_batches(
    examples: Sequence[TrainingExample],
    *,
    batch_size: int,
    sequence_length: int,
    pad_id: int,
) -> Iterator[tuple]:
    """Packed batches with every example once. Empty rows fill the last one.

    Args:
        examples, batch_size, sequence_length, pad_id: See `training_batches`.

    Yields:
        `(x, y, sample_weight)` as `training_batches`.

    Raises:
        ValueError: if an example is longer than a row.
    """
    groups = pack(example_lengths(examples), sequence_length)
    groups += [[]] * (-len(groups) % batch_size)
    for first in range(0, len(groups), batch_size):
        yield stack_rows(
            make_row([examples[i] for i in group], sequence_length, pad_id)
            for group in groups[first : first + batch_size]
        )


def training_dataset(make_batches, *, batch_size: int, sequence_length: int, **form):
    """A `tf.data.Dataset` of training batches, for `fit`.

    Args:
        make_batches: Callable of the arguments below that returns an iterator like
            `training_batches`. `fit` calls it once an epoch.
        batch_size: Rows a batch.
        sequence_length: Tokens a row.
        **form: `packed` and `paired`, if they are given, see `training_batches`.

    Returns:
        A `tf.data.Dataset` of `(x, y, sample_weight)`, see `make_row`. Each array
        has the shape `(batch_size, sequence_length)`.
    """

    def spec(dtype):
        return tf.TensorSpec((batch_size, sequence_length), dtype)

    dtypes = {"token_ids": "int32", "padding_mask": "int32"}
    if form.get("packed", True):
        dtypes |= {"segment_ids": "int32", "positions": "int32"}
    if form.get("paired", False):
        dtypes["reference"] = "float32"
    options = tf.data.Options()
    # A closed iterator waits for the autotuning thread, which may sleep for as long
    # as the training took. There is nothing to tune here.
    options.autotune.enabled = False
    # TensorFlow keeps the function of `from_generator` for good, and with it would keep
    # the model. The dataset keeps what makes its batches.
    reference = weakref.ref(make_batches)
    dataset = (
        tf.data.Dataset.from_generator(
            lambda: reference()(
                batch_size=batch_size, sequence_length=sequence_length, **form
            ),
            output_signature=(
                {name: spec(dtype) for name, dtype in dtypes.items()},
                spec("int32"),
                spec("float32"),
            ),
        )
        .prefetch(2)
        .with_options(options)
    )
    dataset.make_batches = make_batches
    return dataset


def feed_token_ids(model):
    """Let `model.fit` accept token ids in spite of the model's preprocessor.

    A KerasHub model with a preprocessor tokenizes every input of `fit` and discards
    the sample weights. After this call dictionaries with `token_ids` skip the
    preprocessor. Text still goes through it.

    Args:
        model: A `keras_hub.models.CausalLM`. Changed in place.
    """
    preprocess = model.preprocess_samples

    def preprocess_samples(x, y=None, sample_weight=None):
        if isinstance(x, dict) and "token_ids" in x:
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        return preprocess(x, y, sample_weight)

    # Keras would track the function as state.
    object.__setattr__(model, "preprocess_samples", preprocess_samples)
