"""How the next token is chosen: greedy, or by temperature, top-k, top-p and min-p.

`sampling_method` composes them: `Temperature` draws among the tokens that `TopK`,
`TopP` and `MinP` leave, in this order.
"""

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


@dataclasses.dataclass(frozen=True)
class Greedy:
    """Takes the likeliest token, the first of equals."""

    def next_token(self, logits, key_data, token_number):
        """See `Temperature.next_token`; keys and numbers are not used."""
        del key_data, token_number
        return jax.lax.platform_dependent(logits, cpu=_argmax_on_cpu, default=_argmax)


@dataclasses.dataclass(frozen=True)
class TopK:
    """Leaves the `k` likeliest tokens.

    Attributes:
        k: int. At least 1.

    Raises:
        ValueError: if `k` is out of bounds.

    Reference:
        [Fan et al.](https://arxiv.org/abs/1805.04833), section 5.4.
    """

    k: int

    def __post_init__(self):
        if self.k < 1:
            raise invalid("top_k", "`None` or at least 1", self.k)

    def select(self, logits):
        """The highest logits and their tokens.

        The vocabulary is not sorted, and later steps see only `k` tokens.

        Args:
            logits: float array `(batch, vocabulary_size)`.

        Returns:
            A float array `(batch, k)`, and their token ids, an int32 array `(batch,
            k)`; `logits` and `None` if the vocabulary has at most `k` tokens.
        """
        if self.k >= logits.shape[-1]:
            return logits, None
        return jax.lax.top_k(logits, self.k)


@dataclasses.dataclass(frozen=True)
class TopP:
    """Leaves the likeliest tokens that together have the probability `p`.

    Attributes:
        p: float. Above 0, at most 1.

    Raises:
        ValueError: if `p` is out of bounds.

    Reference:
        [Holtzman et al.](https://arxiv.org/abs/1904.09751), section 3.1.
    """

    p: float

    def __post_init__(self):
        if not 0 < self.p <= 1:
            raise invalid("top_p", "`None` or a share above 0, at most 1", self.p)

    def truncate(self, weights):
        """Set the weights outside of the likeliest `p` to zero, see `keep_likeliest`.

        Args:
            weights: float32 array `(batch, size)`; the highest of each row is 1.

        Returns:
            float32 array `(batch, size)`.
        """
        return weights if self.p == 1 else keep_likeliest(weights, self.p)


@dataclasses.dataclass(frozen=True)
class MinP:
    """Leaves the tokens of at least `p` times the highest probability.

    Attributes:
        p: float. Above 0, at most 1.

    Raises:
        ValueError: if `p` is out of bounds.

    Reference:
        [Nguyen et al.](https://arxiv.org/abs/2407.01082), section 3.
    """

    p: float

    def __post_init__(self):
        if not 0 < self.p <= 1:
            raise invalid("min_p", "`None` or a share above 0, at most 1", self.p)

    def truncate(self, weights):
        """Set the weights below `p` to zero.

        Args:
            weights: float32 array `(batch, size)`; the highest of each row is 1.

        Returns:
            float32 array `(batch, size)`.
        """
        return jnp.where(weights < self.p, 0.0, weights)


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Draws a token with its probability at a temperature.

    Attributes:
        temperature: float. Above 0; logits are divided by it.
        top_k: optional `TopK`.
        truncations: `TopP` and `MinP`, applied in this order.

    Raises:
        ValueError: if the temperature is not above 0.
    """

    temperature: float
    top_k: TopK | None = None
    truncations: tuple[TopP | MinP, ...] = ()

    def __post_init__(self):
        if self.temperature <= 0:
            raise invalid("temperature", "0 (greedy) or more", self.temperature)

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
        if self.top_k is not None:
            logits, token_ids = self.top_k.select(logits)
        for truncation in self.truncations:
            weights = relative_weights(logits, self.temperature)
            logits = jnp.where(truncation.truncate(weights) > 0, logits, -jnp.inf)
        choice = draw(logits, key_data, token_number, self.temperature)
        if token_ids is not None:
            choice = jnp.take_along_axis(token_ids, choice[:, None], axis=-1)[:, 0]
        return choice


def sampling_method(
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Greedy | Temperature:
    """The method that the arguments of a sampler describe.

    Args:
        temperature: `0` (the default) is greedy.
        top_k: Sample among the `top_k` likeliest tokens.
        top_p: Sample among the likeliest tokens that together have this probability.
        min_p: Sample among the tokens of at least `min_p` times the highest
            probability.

    Raises:
        ValueError: if an argument is out of bounds, or `top_k`, `top_p` or `min_p` is
            given with `temperature=0`.

    Example:
    ```python
    sampling_method(temperature=0.7, top_p=0.9).truncations  # (TopP(p=0.9),)
    ```
    """
    select = None if top_k is None else TopK(top_k)
    truncations = ()
    if top_p is not None:
        truncations += (TopP(top_p),)
    if min_p is not None:
        truncations += (MinP(min_p),)
    if temperature:
        return Temperature(temperature, select, truncations)
    for name, value in (("top_k", top_k), ("top_p", top_p), ("min_p", min_p)):
        if value is not None:
            raise invalid(
                name,
                "`None` with temperature=0, which is greedy",
                value,
                "Set a temperature above 0.",
            )
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
