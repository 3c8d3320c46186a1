"""From tokenized examples to the rows that `fit` trains on."""

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingExample:
    """Token ids of a prompt and of the response that the model shall learn.

    Attributes:
        prompt_ids: int array `(P,)`, `P >= 1`.
        response_ids: int array `(R,)`, `R >= 1`, end token included.
        weight: Weight of each response token in the loss.
    """

    prompt_ids: np.ndarray
    response_ids: np.ndarray
    weight: float = 1.0

    def __len__(self):
        # The last token is never an input.
        return len(self.prompt_ids) + len(self.response_ids) - 1


def tokenize_prompts(preprocessor, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of prompts, behind a start token where the model wants one.

    Args:
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        prompts: The texts.
    """
    tokenizer = preprocessor.tokenizer
    start = [tokenizer.start_token_id] if preprocessor.add_start_token else []
    return [[*start, *ids] for ids in tokenizer(list(prompts))]


def tokenize_examples(
    preprocessor, texts: Sequence[tuple[str, str, float]]
) -> list[TrainingExample]:
    """Tokenize triples `(prompt, response, weight)`; adds the end token.

    Prompt and response are tokenized apart, as they are when the response is
    sampled, so the boundary between them is exact.

    Args:
        preprocessor: A `keras_hub.models.CausalLMPreprocessor`.
        texts: What to tokenize.
    """
    if not texts:
        return []
    prompts, responses, weights = zip(*texts, strict=True)
    tokenizer = preprocessor.tokenizer
    return [
        TrainingExample(
            prompt_ids=np.asarray(prompt_ids, "int32"),
            response_ids=np.asarray([*response_ids, tokenizer.end_token_id], "int32"),
            weight=weight,
        )
        for prompt_ids, response_ids, weight in zip(
            tokenize_prompts(preprocessor, prompts),
            tokenizer(list(responses)),
            weights,
            strict=True,
        )
    ]


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Put examples into rows, best fit, the longest first.

    Args:
        lengths: Lengths of the examples.
        row_length: Length of a row.

    Returns:
        For each row the indices of its examples.

    Raises:
        ValueError: if an example is longer than a row.
    """
    rows = []
    # Rows with room, as sorted pairs (free tokens, -row): the fullest row that
    # an example fits into is found by bisection.
    open_rows = []
    shortest = min(lengths, default=0)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        if length > row_length:
            raise ValueError(
                f"Expected examples of at most row_length={row_length} tokens. "
                f"Received: one of {length}. Use longer rows."
            )
        at = bisect.bisect_left(open_rows, (length, -len(rows)))
        if at < len(open_rows):
            free, row = open_rows.pop(at)
            row = -row
        else:
            free, row = row_length, len(rows)
            rows.append([])
        rows[row].append(index)
        if free - length >= shortest:
            bisect.insort(open_rows, (free - length, -row))
    return rows


def make_row(examples: Sequence[TrainingExample], row_length: int, pad_id: int):
    """One row of training data.

    Returns:
        A tuple `(x, y, sample_weight)` of arrays of shape `(row_length,)`: `x`
        a dict of int32 `token_ids`, `padding_mask`, `segment_ids` (1, 2, ...;
        0 is padding) and `positions`; `y` int32 next tokens; `sample_weight`
        float32, not zero exactly where `y` is a response token. For a prompt
        `a b` with response `c d`, and a prompt `e` with response `f`:

        ```
        token_ids      a  b  c  e  0
        segment_ids    1  1  1  2  0
        positions      0  1  2  0  0
        y              b  c  d  f  0
        sample_weight  0  1  1  1  0
        ```
    """
    x = {
        "token_ids": np.full(row_length, pad_id, "int32"),
        "padding_mask": np.zeros(row_length, "int32"),
        "segment_ids": np.zeros(row_length, "int32"),
        "positions": np.zeros(row_length, "int32"),
    }
    y = np.full(row_length, pad_id, "int32")
    sample_weight = np.zeros(row_length, "float32")
    start = 0
    for segment, example in enumerate(examples, start=1):
        ids = np.concatenate([example.prompt_ids, example.response_ids])
        end = start + len(example)
        x["token_ids"][start:end] = ids[:-1]
        x["padding_mask"][start:end] = 1
        x["segment_ids"][start:end] = segment
        x["positions"][start:end] = np.arange(len(example))
        y[start:end] = ids[1:]
        response_start = start + len(example.prompt_ids) - 1
        sample_weight[response_start:end] = example.weight
        start = end
    return x, y, sample_weight


def stack_rows(rows):
    """Stack `(x, y, sample_weight)` rows into a batch `(batch, row_length)`."""
    xs, ys, weights = zip(*rows, strict=True)
    return (
        {name: np.stack([x[name] for x in xs]) for name in xs[0]},
        np.stack(ys),
        np.stack(weights),
    )


def training_batches(
    examples: Sequence[TrainingExample],
    *,
    batch_size: int,
    row_length: int,
    pad_id: int,
    seed: Iterable[int],
    packed: bool = True,
) -> Iterator[tuple]:
    """An endless stream of training batches, every example once a pass.

    Rows that do not fill a batch at the end of a pass open the first batch of
    the next. Without examples every batch is of weight zero.

    Args:
        examples: What to train on.
        batch_size: Rows a batch.
        row_length: Tokens a row.
        pad_id: Token id of the padding.
        seed: Ints that name this stream; the order depends on nothing else.
        packed: Whether rows hold several examples. Rows of one example come
            without `segment_ids` and `positions`.

    Yields:
        `(x, y, sample_weight)`, see `make_row`, of shape
        `(batch_size, row_length)`.
    """
    generator = np.random.default_rng(list(seed))
    lengths = [len(example) for example in examples]
    waiting = []
    while True:
        # Which examples share a row is drawn anew each pass.
        order = generator.permutation(len(examples))
        if packed:
            groups = pack([lengths[i] for i in order], row_length)
        else:
            groups = [[i] for i in range(len(order))]
        groups = groups or [[]]
        for g in generator.permutation(len(groups)):
            row = make_row([examples[order[i]] for i in groups[g]], row_length, pad_id)
            if not packed:
                del row[0]["segment_ids"], row[0]["positions"]
            waiting.append(row)
            if len(waiting) == batch_size:
                yield stack_rows(waiting)
                waiting = []


def training_dataset(make_batches, *, batch_size: int, row_length: int, packed=True):
    """A `tf.data.Dataset` that `fit` takes and opens anew each epoch.

    Args:
        make_batches: Callable that returns an iterator like
            `training_batches`. Called whenever the dataset is opened.
        batch_size: Rows a batch.
        row_length: Tokens a row.
        packed: Whether batches have `segment_ids` and `positions`.
    """

    def spec(dtype):
        return tf.TensorSpec((batch_size, row_length), dtype)

    names = ["token_ids", "padding_mask"]
    if packed:
        names += ["segment_ids", "positions"]
    options = tf.data.Options()
    # There is nothing to tune, and an iterator that goes away waits for the
    # thread that would, which may sleep for as long as training took.
    options.autotune.enabled = False
    return (
        tf.data.Dataset.from_generator(
            make_batches,
            output_signature=(
                {name: spec("int32") for name in names},
                spec("int32"),
                spec("float32"),
            ),
        )
        .prefetch(2)
        .with_options(options)
    )
