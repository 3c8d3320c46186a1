"""Settings of single requests of an engine, one row of the slots each."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from jax import numpy as jnp

from star_keras.sampling.draws import draw, keep_likeliest, relative_weights
from star_keras.sampling.sampling_methods import LOWEST_TEMPERATURE, Greedy
from star_keras.utils.settings import checked


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestSettings:
    """Settings of a request, in place of the sampler's.

    Attributes:
        max_new_tokens: Longest completion in tokens, at most that of the sampler, which
            is the default.
        temperature: `0` (the default) is greedy, and so are values below `1e-4`.
        top_p: Sample among the likeliest tokens that together have this probability.
            Defaults to `1`, all tokens.
        top_log_probs: Whether the completion has the likeliest tokens of each place,
            if the request asks for log-probabilities.
        on_tokens: Called with `(request_id, token_ids, log_probs, top_log_probs)` of
            the new tokens after each decode chunk that does not end the completion, in
            the thread of a worker. The last two are `None` unless asked for; see
            `Completion`. It must return soon and raise nothing.

    Raises:
        ValueError: if a number is out of bounds.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_log_probs: bool = False
    on_tokens: Callable[..., None] | None = None

    def __post_init__(self):
        if self.max_new_tokens is not None:
            checked("max_new_tokens", int, self.max_new_tokens, at_least=1)
        checked("temperature", float, self.temperature, at_least=0)
        checked("top_p", float, self.top_p, above=0, at_most=1)


def next_token_by_row(logits, key_data, token_number, temperature, top_p):
    """Choose the next token of each row by settings of its own.

    Equals `Greedy` and `Temperature` with `top_p` for rows with their settings.

    Args:
        logits: float array `(batch, vocabulary_size)`.
        key_data: See `Temperature.next_token`.
        token_number: See `Temperature.next_token`.
        temperature: float32 array `(batch,)`.
        top_p: float32 array `(batch,)`.

    Returns:
        int32 array `(batch,)`.
    """
    is_drawn = temperature >= LOWEST_TEMPERATURE
    greedy = Greedy().next_token(logits, key_data, token_number)

    def drawn():
        divisor = jnp.where(is_drawn, temperature, 1.0)[:, None]
        p = top_p[:, None]

        def truncated():
            kept = keep_likeliest(relative_weights(logits, divisor), p) > 0
            return jnp.where((p == 1) | kept, logits, -jnp.inf)

        truncates = jnp.any(is_drawn & (top_p < 1))
        left = jax.lax.cond(truncates, truncated, lambda: logits)
        choice = draw(left, key_data, token_number, divisor)
        return jnp.where(is_drawn, choice, greedy)

    return jax.lax.cond(jnp.any(is_drawn), drawn, lambda: greedy)


def row_choices(samples) -> tuple[np.ndarray, np.ndarray]:
    """The last two arguments of `next_token_by_row`.

    Args:
        samples: A `PartialSample` or `None` for each slot.
    """
    temperature = np.zeros(len(samples), "float32")
    top_p = np.ones(len(samples), "float32")
    for i, sample in enumerate(samples):
        if sample is not None:
            temperature[i] = sample.settings.temperature
            top_p[i] = sample.settings.top_p
    return temperature, top_p
