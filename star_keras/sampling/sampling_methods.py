"""How the next token is chosen: greedy, or by temperature, top-k, top-p and min-p."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax import numpy as jnp

from star_keras.sampling.draws import (
    draw,
    first_true,
    keep_likeliest,
    relative_weights,
)
from star_keras.utils.errors import invalid

# Below, the quotients of float32 logits lose their meaning.
LOWEST_TEMPERATURE = 1e-4


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Takes the likeliest token, the first of equals."""

    def next_token(self, logits, key_data, token_number):
        """See `Temperature.next_token`; keys and numbers are not used."""
        del key_data, token_number
        return jax.lax.platform_dependent(logits, cpu=_argmax_on_cpu, default=_argmax)


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Draws a token with its probability at a temperature, of those that are left.

    Attributes:
        temperature: float. At least `LOWEST_TEMPERATURE`; logits are divided by it.
        top_k: optional int. Leaves the `top_k` likeliest tokens.
        top_p: optional float. Then leaves the likeliest tokens that together have this
            probability, see `keep_likeliest`.
        min_p: optional float. Then leaves the tokens of at least `min_p` times the
            highest probability.

    Reference:
        [Fan et al.](https://arxiv.org/abs/1805.04833), section 5.4, for `top_k`;
        [Holtzman et al.](https://arxiv.org/abs/1904.09751), section 3.1, for `top_p`;
        [Nguyen et al.](https://arxiv.org/abs/2407.01082), section 3, for `min_p`.
    """

    temperature: float
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def next_token(self, logits, key_data, token_number):
        """Choose the next token of each row.

        A row's choice depends on its own logits, key and token number alone, so a
        request gets the same completion in every batch, but for the rounding of its
        logits.

        Args:
            logits: float array `(batch, vocabulary_size)`.
            key_data: uint32 array `(batch, 2)`. Random keys of the rows, see
                `request_key`.
            token_number: int array `(batch,)`. Number of tokens that the row has
                sampled before.

        Returns:
            int32 array `(batch,)`.
        """
        token_ids = None
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            # The vocabulary is not sorted, and later steps see only `top_k` tokens.
            logits, token_ids = jax.lax.top_k(logits, self.top_k)
        if self.top_p is not None and self.top_p < 1:
            weights = relative_weights(logits, self.temperature)
            is_left = keep_likeliest(weights, self.top_p) > 0
            logits = jnp.where(is_left, logits, -jnp.inf)
        if self.min_p is not None:
            weights = relative_weights(logits, self.temperature)
            logits = jnp.where(weights >= self.min_p, logits, -jnp.inf)
        choice = draw(logits, key_data, token_number, self.temperature)
        if token_ids is not None:
            choice = jnp.take_along_axis(token_ids, choice[:, None], axis=-1)[:, 0]
        return choice


def sampling_method(*, temperature: float = 0.0, **truncations) -> Greedy | Temperature:
    """The method that the arguments of a sampler describe.

    Args:
        temperature: `0` (the default) is greedy.
        **truncations: `top_k`, `top_p` and `min_p`, see `Temperature`.

    Raises:
        ValueError: if one of them is given with `temperature=0`, or the temperature is
            above 0 and below `LOWEST_TEMPERATURE`.

    Example:
    ```python
    sampling_method(temperature=0.7, top_p=0.9).top_p  # 0.9
    ```
    """
    if temperature:
        if temperature < LOWEST_TEMPERATURE:
            rule = f"0, or at least {LOWEST_TEMPERATURE}"
            raise invalid("temperature", rule, temperature, "0 is greedy.")
        return Temperature(temperature, **truncations)
    for name, value in truncations.items():
        if value is not None:
            rule = "`None` with temperature=0, which is greedy"
            raise invalid(name, rule, value, "Set a temperature above 0.")
    return Greedy()


def request_key(seed: int, request_seed: Sequence[int]) -> np.ndarray:
    """The random key of a request.

    Args:
        seed: Seed of the sampler.
        request_seed: `SampleRequest.seed`.

    Returns:
        uint32 array `(2,)`, different for different seeds of the same length with
        numbers below `2**32`. A zero at the end of a seed may change nothing.
    """
    return np.random.SeedSequence([seed, *request_seed]).generate_state(2)


def _argmax(logits):
    return jnp.argmax(logits, axis=-1).astype("int32")


def _argmax_on_cpu(logits):
    """`_argmax`, four times faster on CPU."""
    return first_true(logits == jnp.max(logits, axis=-1, keepdims=True))
