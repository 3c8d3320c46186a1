"""Log-probabilities of responses under a reference model, computed once."""

import jax
import keras
import numpy as np

from star_keras.distribution import processes, split_rows
from star_keras.training.head_loss import head_log_probs
from star_keras.training.objectives import segment_totals
from star_keras.training.packing import make_row, pack, stack_rows
from star_keras.training.stored_examples import example_lengths


class ReferenceScorer:
    """Scores packed examples with the weights that a model has now.

    Args:
        model: A KerasHub causal LM with a `TrainingStep`.
        batch_size: int. Rows a batch.
        sequence_length: int. Tokens a row.
        pad_id: int. Token id of the padding.
    """

    def __init__(self, model, *, batch_size: int, sequence_length: int, pad_id: int):
        self._model, self._batch_size = model, batch_size
        self._sequence_length, self._pad_id = sequence_length, pad_id
        self._totals = jax.jit(self._batch_totals)

    def score(self, examples) -> np.ndarray:
        """Log-probabilities of the responses, end tokens included.

        Args:
            examples: Sequence of `TrainingExample`, each at most a row long.

        Returns:
            float64 array `(len(examples),)` of float32 values.
        """
        found = np.zeros(len(examples))
        rows = pack(example_lengths(examples), self._sequence_length)
        variables = [v.value for v in self._model.variables]
        for start in range(0, len(rows), self._batch_size):
            several = rows[start : start + self._batch_size]
            # A short batch is filled up with empty rows.
            filled = [*several, *[[]] * (self._batch_size - len(several))]
            batch = stack_rows([self._row(examples, row) for row in filled])
            totals = processes.gather(self._totals(variables, *split_rows(batch)))
            for row, values in zip(several, totals, strict=False):
                found[row] = values[: len(row)]
        return found

    def _row(self, examples, row):
        chosen = [examples[i] for i in row]
        return make_row(chosen, self._sequence_length, self._pad_id)

    def _batch_totals(self, variables, x, y, weights):
        """Totals of the segments of rows, `(batch, length + length % 2)`."""
        model = self._model
        mapping = list(zip(model.variables, variables, strict=True))
        with keras.StatelessScope(mapping):
            hidden_states, head = model.hidden_states(x, training=False), model.head()
            log_probs = head_log_probs(
                hidden_states,
                head.kernel,
                head.bias,
                y,
                weights,
                soft_cap=head.soft_cap,
            )
        return segment_totals(log_probs, x)
