"""Packing: several training examples in a row of fixed length."""

import bisect
from collections.abc import Sequence

import numpy as np

from star_keras.training.examples import TrainingExample


def pack(lengths: Sequence[int], sequence_length: int) -> list[list[int]]:
    """Assign examples to rows: best fit, the longest first.

    Args:
        lengths: Tokens of each example.
        sequence_length: Tokens of a row.

    Returns:
        For each row the indices of its examples.

    Raises:
        ValueError: if an example is longer than a row.

    Example:
    ```python
    pack([3, 5, 2], sequence_length=8)  # [[1, 0], [2]]
    ```
    """
    check_row_lengths(lengths, sequence_length)
    rows = []
    # Rows with room, as sorted pairs (free tokens, -row). Bisection finds the
    # fullest row with room for an example.
    open_rows = []
    shortest = min(lengths, default=0)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        at = bisect.bisect_left(open_rows, (length, -len(rows)))
        if at < len(open_rows):
            free, row = open_rows.pop(at)
            row = -row
        else:
            free, row = sequence_length, len(rows)
            rows.append([])
        rows[row].append(index)
        if free - length >= shortest:
            bisect.insort(open_rows, (free - length, -row))
    return rows


def check_row_lengths(
    lengths: Sequence[int], sequence_length: int, name: str = "examples"
):
    """Check that each example fits into a row.

    Args:
        lengths: Tokens of each example.
        sequence_length: Tokens of a row.
        name: What they are, for the error.

    Raises:
        ValueError: if one is longer; names the longest.
    """
    longest = max(lengths, default=0)
    if longest > sequence_length:
        raise ValueError(
            f"Expected {name} of at most sequence_length={sequence_length} tokens. "
            f"Received: {name}[{list(lengths).index(longest)}] of {longest} tokens. "
            f"Use rows of at least {longest} tokens, or shorten it."
        )


def make_row(
    examples: Sequence[TrainingExample],
    sequence_length: int,
    pad_id: int,
    *,
    paired: bool = False,
):
    """One row of training data.

    Args:
        examples: The examples of the row. Together they have at most
            `sequence_length` tokens.
        sequence_length: Tokens of the row.
        pad_id: Token id of the padding.
        paired: Whether examples 0 and 1, 2 and 3 and so on are pairs of a right and a
            wrong completion.

    Returns:
        `(x, y, sample_weight)`, arrays of shape `(sequence_length,)`:

        - `x`, a dict of int32 arrays: `token_ids`; `padding_mask`, 1 for real
          tokens; `segment_ids`, 1, 2, ... for the examples and 0 for padding;
          `positions` within the example; and of pairs the float32 array `reference`,
          the example's reference at its first token and 0 at others;
        - `y`, int32: the next tokens;
        - `sample_weight`, float32: the example's weight where `y` is a response
          token, else 0.

        For a prompt `a b` with response `c d`, and a prompt `e` with response `f`:

        ```
        token_ids      a  b  c  e  0
        segment_ids    1  1  1  2  0
        positions      0  1  2  0  0
        y              b  c  d  f  0
        sample_weight  0  1  1  1  0
        ```
    """
    x = {
        "token_ids": np.full(sequence_length, pad_id, "int32"),
        "padding_mask": np.zeros(sequence_length, "int32"),
        "segment_ids": np.zeros(sequence_length, "int32"),
        "positions": np.zeros(sequence_length, "int32"),
    }
    if paired:
        x["reference"] = np.zeros(sequence_length, "float32")
    y = np.full(sequence_length, pad_id, "int32")
    sample_weight = np.zeros(sequence_length, "float32")
    start = 0
    for segment, example in enumerate(examples, start=1):
        ids = np.concatenate([example.prompt_ids, example.response_ids])
        end = start + len(example)
        x["token_ids"][start:end] = ids[:-1]
        x["padding_mask"][start:end] = 1
        x["segment_ids"][start:end] = segment
        x["positions"][start:end] = np.arange(len(example))
        if paired:
            x["reference"][start] = example.reference
        y[start:end] = ids[1:]
        response_start = start + len(example.prompt_ids) - 1
        sample_weight[response_start:end] = example.weight
        start = end
    return x, y, sample_weight


def stack_rows(rows):
    """Stack rows into a batch.

    Args:
        rows: Tuples `(x, y, sample_weight)` of `make_row`.

    Returns:
        `(x, y, sample_weight)`, arrays of shape `(len(rows), sequence_length)` with
        the dtypes of the rows.
    """
    xs, ys, weights = zip(*rows, strict=True)
    return (
        {name: np.stack([x[name] for x in xs]) for name in xs[0]},
        np.stack(ys),
        np.stack(weights),
    )
