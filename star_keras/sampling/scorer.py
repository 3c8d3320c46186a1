"""Log-likelihoods of given continuations under a causal LM."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax import numpy as jnp

from star_keras.distribution import split_rows
from star_keras.models.max_sequence_length import max_sequence_length
from star_keras.models.with_variables import with_variables
from star_keras.sampling.buckets import bucket
from star_keras.sampling.layout import MeshLayout
from star_keras.sampling.merged_lora import merged_values
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

# Shortest rows that are compiled.
_SHORTEST = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreRequest:
    """One continuation to score.

    Attributes:
        context: Token ids before the continuation, at least one.
        continuation: Token ids to score, at least one.
        name: Name of the request in errors.
    """

    context: Sequence[int]
    continuation: Sequence[int]
    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """The score of a continuation.

    Attributes:
        log_likelihood: Natural logarithm of the probability of the continuation
            after its context.
        is_greedy: Whether greedy decoding would write the continuation.
    """

    log_likelihood: float
    is_greedy: bool


class Scorer:
    """Scores continuations in batches of similar length.

    Works with every KerasHub `CausalLM`. LoRA adapters are merged once a call. Under
    a `keras.distribution` the rows of a batch are split over its batch axis.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        batch_size: int. Rows scored together; under a `keras.distribution` a
            multiple of its batch axis. Defaults to `64`.
        max_length: optional int. Longest input in tokens; longer inputs lose
            their beginning. Defaults to the model's `max_sequence_length`, or
            the preprocessor's `sequence_length` for a model without one.

    Attributes:
        max_length: int. See above.
        score_batch: See `_score_batch`: a function of `jax.jit`.

    Raises:
        ValueError: if the model has no preprocessor, an argument is out of
            bounds, or the distribution cannot split the batch.

    Example:
    ```python
    request = ScoreRequest(context=[1, 2, 3], continuation=[4, 5], name="example")
    for batch in Scorer(model).score([request]):
        for index, score in batch:
            print(index, score.log_likelihood, score.is_greedy)
    ```
    """

    def __init__(self, model, *, batch_size=64, max_length=None):
        if model.preprocessor is None:
            raise invalid("model", "a causal LM with a preprocessor", model)
        batch_size = checked("batch_size", int, batch_size, at_least=1)
        MeshLayout.current().check_batch_size(batch_size)
        limit = max_sequence_length(model)
        if max_length is None:
            max_length = limit or model.preprocessor.sequence_length
        max_length = checked("max_length", int, max_length, at_least=0)
        if max_length < 1 or (limit and max_length > limit):
            rule = "at least 1"
            if limit:
                rule += f", and at most {limit}, the model's `max_sequence_length`"
            raise invalid("max_length", rule, max_length)
        self.model = model
        self.batch_size = batch_size
        self.max_length = max_length
        self.score_batch = jax.jit(self._score_batch)

    def score(
        self, requests: Sequence[ScoreRequest]
    ) -> Iterator[list[tuple[int, Score]]]:
        """Score continuations.

        Args:
            requests: The contexts and continuations.

        Yields:
            Lists of `(index of the request, score)`, a batch at a time, the
            longest rows first.

        Raises:
            ValueError: if a context is empty, or a continuation is empty or
                longer than `max_length`. Nothing is scored then.
        """
        rows = []
        for request in requests:
            context, continuation = list(request.context), list(request.continuation)
            if not context:
                raise ValueError(
                    f"The context of {request.name!r} is empty. Expected at least one "
                    "token, such as the start or end token."
                )
            if not 1 <= len(continuation) <= self.max_length:
                raise ValueError(
                    f"The continuation of {request.name!r} has {len(continuation)} "
                    f"tokens. Expected 1 to max_length={self.max_length} tokens."
                )
            tokens = (context + continuation)[-(self.max_length + 1) :]
            rows.append((tokens[:-1], continuation))
        variables = merged_values(self.model)
        # The longest first: a batch too large for the memory fails at once.
        order = sorted(range(len(rows)), key=lambda i: [-len(x) for x in rows[i]])
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            arrays = self._batch_arrays([rows[i] for i in batch])
            scores = map(np.asarray, self.score_batch(variables, *arrays))
            yield [
                (i, Score(log_likelihood=float(value), is_greedy=bool(greedy)))
                for i, value, greedy in zip(batch, *scores, strict=False)
            ]

    def _batch_arrays(self, rows):
        """Arrays of `_score_batch` from pairs `(inputs, continuation)`."""
        longest = max(len(inputs) for inputs, _ in rows)
        most = max(len(continuation) for _, continuation in rows)
        length = min(_row_size(longest), self.max_length)
        shape = (self.batch_size, length)
        token_ids = np.zeros(shape, "int32")
        padding_mask = np.zeros(shape, "int32")
        shape = (self.batch_size, min(_row_size(most), length))
        positions = np.zeros(shape, "int32")
        targets = np.zeros(shape, "int32")
        counted = np.zeros(shape, "bool")
        # A short batch is filled up with copies of its first row.
        rows = rows + rows[:1] * (self.batch_size - len(rows))
        for row, (inputs, continuation) in enumerate(rows):
            token_ids[row, : len(inputs)] = inputs
            padding_mask[row, : len(inputs)] = 1
            count = len(continuation)
            positions[row, :count] = np.arange(len(inputs) - count, len(inputs))
            targets[row, :count] = continuation
            counted[row, :count] = True
        return split_rows((token_ids, padding_mask, positions, targets, counted))

    def _score_batch(
        self, variables, token_ids, padding_mask, positions, targets, counted
    ):
        """Log-likelihoods of a batch.

        Args:
            variables: List of arrays. Values of the variables of the model.
            token_ids: int32 array `(batch, length)`, padded right.
            padding_mask: int32 array `(batch, length)`, 0 at padding.
            positions: int32 array `(batch, count)`. Row positions of the logits
                of each token of the continuation.
            targets: int32 array `(batch, count)`. Tokens of the continuation,
                padded right.
            counted: bool array `(batch, count)`, false at padding.

        Returns:
            Log-likelihoods, a float32 array `(batch,)`; and whether greedy
            decoding writes the continuation, a bool array `(batch,)`.
        """
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        with with_variables(self.model, variables):
            logits = self.model(inputs, training=False)
        # (batch, count, vocabulary)
        logits = jnp.take_along_axis(logits, positions[:, :, None], axis=1)
        log_probs = jax.nn.log_softmax(logits.astype("float32"))
        chosen = jnp.take_along_axis(log_probs, targets[:, :, None], axis=2)[:, :, 0]
        greedy = jnp.argmax(log_probs, axis=-1) == targets
        return (
            jnp.sum(jnp.where(counted, chosen, 0), axis=1),
            jnp.all(greedy | ~counted, axis=1),
        )


def _row_size(length):
    return bucket(length, 2 * _SHORTEST) if length > _SHORTEST else _SHORTEST
