"""Log-probabilities of tokens under the distribution of the model."""

import jax
from jax import numpy as jnp

# Likeliest tokens that are reported at a place.
TOP_LOG_PROBS = 5


def token_log_probs(logits, tokens):
    """Log-probabilities of tokens under the distribution of the model.

    Args:
        logits: float array `(batch, vocabulary_size)`.
        tokens: int array `(batch,)`.

    Returns:
        float32 array `(batch,)`.
    """
    logits = logits.astype("float32")
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def top_log_probs(logits):
    """The likeliest tokens, the likeliest first.

    Args:
        logits: float array `(batch, vocabulary_size)`.

    Returns:
        Their log-probabilities, a float32 array `(batch, TOP_LOG_PROBS)`, and their
        ids, an int32 array of this shape; fewer columns for a smaller vocabulary.
    """
    logits = logits.astype("float32")
    values, ids = jax.lax.top_k(logits, min(TOP_LOG_PROBS, logits.shape[-1]))
    return values - jax.nn.logsumexp(logits, axis=-1, keepdims=True), ids


def token_pairs(values, ids) -> list[tuple[tuple[int, float], ...]]:
    """`(token id, log-probability)` of the likeliest tokens of each place.

    Args:
        values: float32 array `(places, top)`.
        ids: int32 array `(places, top)`.
    """
    return [
        tuple(zip(row_ids, row_values, strict=True))
        for row_ids, row_values in zip(ids.tolist(), values.tolist(), strict=True)
    ]
