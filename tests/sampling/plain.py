"""Forward passes of whole rows, to compare samplers and scorers with."""

import jax
import numpy as np


class PlainModel:
    """Computes with a causal LM without a cache and without batches.

    Args:
        model: A `keras_hub.models.CausalLM`.
        length: Longest row.
    """

    def __init__(self, model, length=128):
        self.model, self.length = model, length
        self.tokenizer = model.preprocessor.tokenizer
        self._forward = jax.jit(
            lambda weights, inputs: model.stateless_call(*weights, inputs)[0]
        )

    def logits(self, ids):
        """Logits `(len(ids), vocabulary)` of one row in float64."""
        row = np.zeros((1, self.length), "int32")
        row[0, : len(ids)] = ids
        mask = (np.arange(self.length) < len(ids))[None].astype("int32")
        weights = [
            [v.value for v in group]
            for group in (
                self.model.trainable_variables,
                self.model.non_trainable_variables,
            )
        ]
        inputs = {"token_ids": row, "padding_mask": mask}
        logits = np.asarray(self._forward(weights, inputs))
        return logits[0, : len(ids)].astype("float64")

    def score(self, ids, count):
        """Log-likelihood of the last `count` ids, and whether all are greedy."""
        logits = self.logits(ids)[-count - 1 : -1]
        targets = ids[-count:]
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        greedy = logits.argmax(axis=-1).tolist() == targets
        return log_probs[np.arange(count), targets].sum(), greedy

    def greedy(self, ids, count):
        """The next ids: at most `count`, up to the end token, without it."""
        start, ids = len(ids), list(ids)
        while len(ids) < start + count:
            ids.append(int(self.logits(ids)[-1].argmax()))
            if ids[-1] == self.tokenizer.end_token_id:
                return ids[start:-1]
        return ids[start:]
