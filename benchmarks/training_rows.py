"""Rows to train on: full ones, and examples as long as those of GSM8K."""

import itertools

import numpy as np

# Deciles of the lengths of GSM8K's training problems, question and answer together,
# in characters.
GSM8K_DECILES = (134, 303, 354, 401, 446, 494, 547, 611, 690, 817, 1699)
_CHARACTERS_A_TOKEN = 4


def full_rows(vocabulary_size: int, batch_size: int, sequence_length: int):
    """Random token ids, an int32 array `(batch_size, sequence_length)`."""
    rng = np.random.default_rng(0)
    return rng.integers(1, vocabulary_size, (batch_size, sequence_length), "int32")


def full_batch(tokens):
    """The training batch `(x, y, sample_weight)` of full rows, see `make_row`."""
    shape = tokens.shape
    x = {
        "token_ids": tokens,
        "padding_mask": np.ones(shape, "int32"),
        "segment_ids": np.ones(shape, "int32"),
        "positions": np.broadcast_to(np.arange(shape[1], dtype="int32"), shape),
    }
    return x, np.roll(tokens, -1, 1), np.ones(shape, "float32")


def without_segments(batch):
    """The same batch for a model without packed rows."""
    x, y, sample_weight = batch
    x = {name: x[name] for name in ("token_ids", "padding_mask")}
    return x, y, sample_weight


def gsm8k_like_examples(vocabulary_size: int, count: int = 1000):
    """Random `TrainingExample`s of 33 to 425 tokens."""
    from star_keras.training import TrainingExample

    rng = np.random.default_rng(0)
    quantiles = np.linspace(0, 1, len(GSM8K_DECILES))
    characters = np.interp(rng.random(count), quantiles, GSM8K_DECILES)
    found = []
    for length in (characters // _CHARACTERS_A_TOKEN).astype(int):
        ids = rng.integers(1, vocabulary_size, length + 1, "int32")
        # As in GSM8K, somewhat less than half is the question.
        cut = length * 2 // 5
        found.append(TrainingExample(prompt_ids=ids[:cut], response_ids=ids[cut:]))
    return found


def padded_batches(examples, batch_size: int, sequence_length: int):
    """An endless stream of training batches with one example a row."""
    from star_keras.training.packing import make_row, stack_rows

    rows = (
        make_row([example], sequence_length, pad_id=0)
        for example in itertools.cycle(examples)
    )
    while True:
        yield stack_rows(list(itertools.islice(rows, batch_size)))
