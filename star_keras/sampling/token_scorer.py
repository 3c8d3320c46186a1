"""Log-probabilities of the tokens of a text under a causal LM."""

import sys
from collections.abc import Sequence

import jax
import numpy as np

from star_keras.distribution import split_rows
from star_keras.models.max_sequence_length import max_sequence_length
from star_keras.sampling.buckets import bucket
from star_keras.sampling.layout import MeshLayout
from star_keras.sampling.log_probs import token_log_probs, token_pairs, top_log_probs


class TokenScorer:
    """Scores every token of a row after the ones before it.

    Works with every KerasHub `CausalLM`. Lengths are rounded up to two sizes an octave,
    so few shapes are compiled.

    Args:
        model: A `keras_hub.models.CausalLM`.

    Attributes:
        score_rows: See `_score_rows`: a function of `jax.jit`.

    Example:
    ```python
    log_probs, top_log_probs = TokenScorer(model).score([1, 2, 3])
    len(log_probs)  # 2
    ```
    """

    def __init__(self, model):
        self.model = model
        self.score_rows = jax.jit(self._score_rows)

    def score(
        self, token_ids: Sequence[int]
    ) -> tuple[list[float], list[tuple[tuple[int, float], ...]]]:
        """Score the tokens of a row, but the first.

        Args:
            token_ids: Token ids, no more than the model takes.

        Returns:
            The log-probability of each token from the second on, and the likeliest
            tokens at its place, see `Completion`. Two empty lists for fewer than two
            tokens.
        """
        count = len(token_ids)
        if count < 2:
            return [], []
        # A row for each part of the batch axis; all are the same.
        length = min(bucket(count, 32), max_sequence_length(self.model) or sys.maxsize)
        shape = MeshLayout.current().batch_devices, length
        row, mask = np.zeros(shape, "int32"), np.zeros(shape, "int32")
        row[:, :count], mask[:, :count] = token_ids, 1
        weights = (
            [v.value for v in self.model.trainable_variables],
            [v.value for v in self.model.non_trainable_variables],
        )
        log_probs, values, ids = map(
            np.asarray, self.score_rows(weights, *split_rows((row, mask)))
        )
        last = count - 1
        return log_probs[:last].tolist(), token_pairs(values[:last], ids[:last])

    def _score_rows(self, weights, token_ids, padding_mask):
        """Scores of the first of several equal rows.

        Args:
            weights: Two lists of arrays. Values of the trainable and of the other
                variables of the model.
            token_ids: int32 array `(rows, length)`, padded right.
            padding_mask: int32 array `(rows, length)`, 0 at padding.

        Returns:
            Log-probabilities of the next tokens, a float32 array `(length - 1,)`, and
            those of the likeliest tokens with their ids, see `top_log_probs`.
        """
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        logits, _ = self.model.stateless_call(*weights, inputs, training=False)
        logits = logits[0, :-1]
        return token_log_probs(logits, token_ids[0, 1:]), *top_log_probs(logits)
