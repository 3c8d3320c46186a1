"""What the samplers of a KerasHub causal LM have in common."""

import bisect
from collections.abc import Sequence

import jax
import keras
import numpy as np
from jax import numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from star_keras.distribution import CausalLMParallel
from star_keras.packing import tokenize_prompts
from star_keras.sampling.sampler import Completion, Sampler, SampleRequest


class ModelSampler(Sampler):
    """Base class: arguments, tokenizing, the next token, and where to stop.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        max_new_tokens: int. Longest completion in tokens.
        batch_size: int. Rows decoded together. Defaults to `64`.
        temperature: float. `0` (the default) is greedy.
        top_k: optional int. Sample among the `k` likeliest tokens.
        top_p: optional float. Sample among the likeliest tokens that together
            have this probability.
        seed: int. See `SampleRequest.seed`. Defaults to `0`.
    """

    def __init__(
        self,
        model,
        *,
        max_new_tokens,
        batch_size=64,
        temperature=0.0,
        top_k=None,
        top_p=None,
        seed=0,
    ):
        for name, value, valid, rule in (
            ("max_new_tokens", max_new_tokens, max_new_tokens >= 1, "at least 1"),
            ("batch_size", batch_size, batch_size >= 1, "at least 1"),
            ("temperature", temperature, temperature >= 0, "0 (greedy) or more"),
            ("top_k", top_k, top_k is None or top_k >= 1, "`None` or at least 1"),
            (
                "top_p",
                top_p,
                top_p is None or 0 < top_p <= 1,
                "`None` or a share above 0, at most 1",
            ),
            ("seed", seed, seed >= 0, "0 or more"),
        ):
            if not valid:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected {rule}. "
                    f"Received: {name}={value}."
                )
        if temperature == 0 and (top_k is not None or top_p is not None):
            raise ValueError(
                "Invalid value for arguments `top_k` and `top_p`. Expected `None` "
                "when temperature=0, which is greedy. Received: "
                f"top_k={top_k}, top_p={top_p}. Set a temperature."
            )
        self._mesh, self._batch_axis = None, None
        distribution = keras.distribution.distribution()
        if distribution is not None:
            if isinstance(distribution, CausalLMParallel):
                distribution.check_layouts()
            self._mesh = distribution.device_mesh.backend_mesh
            self._batch_axis = distribution.batch_dim_name
            devices = self._mesh.shape[self._batch_axis]
            if batch_size % devices:
                raise ValueError(
                    "Invalid value for argument `batch_size`. Expected a multiple "
                    f"of the {devices} devices of the mesh's axis "
                    f"{self._batch_axis!r}. "
                    f"Received: batch_size={batch_size}. Nearest: "
                    f"{-(-batch_size // devices) * devices}."
                )
        self.model = model
        self.tokenizer = model.preprocessor.tokenizer
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.seed = seed

    def get_config(self):
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "seed": self.seed,
        }

    def _variables(self):
        """Values of the model's variables, to sample many tokens with."""
        values = self._values()
        distribution = keras.distribution.distribution()
        if isinstance(distribution, CausalLMParallel):
            return distribution.without_zero(values, self.model.variables)
        return values

    def _values(self):
        return [v.value for v in self.model.variables]

    def _split(self, x, *axes):
        """Lay arrays out over the mesh, if there is one: axes as in `PartitionSpec`.

        Further axes of an array lie whole on each device.
        """
        if self._mesh is None:
            return x
        sharding = NamedSharding(self._mesh, PartitionSpec(*axes))
        return jax.tree.map(
            lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), x
        )

    def _with_variables(self, variables):
        return keras.StatelessScope(
            state_mapping=list(zip(self.model.variables, variables, strict=True))
        )

    def _prompt_ids(self, requests: Sequence[SampleRequest]) -> list[list[int]]:
        """Token ids of whole prompts, texts or ids already."""
        prompts = [request.prompt for request in requests]
        if isinstance(prompts[0], str):
            return tokenize_prompts(self.model.preprocessor, prompts)
        return [list(prompt) for prompt in prompts]

    def _shared_prefix(self, requests: Sequence[SampleRequest]) -> str:
        """The prefix of all requests without the white space at its end.

        That space is tokenized together with what follows it, since GPT-2's
        pattern, among others, joins a space with the word behind it and
        splits off the last of several newlines. No token of that pattern goes
        from other characters on into white space, so to tokenize prefix and
        rest apart gives the tokens of the whole.
        """
        prefix = requests[0].prefix
        for request in requests:
            if request.prefix != prefix or (
                prefix and not str(request.prompt).startswith(prefix)
            ):
                raise ValueError(
                    f"Invalid value for the prefix of {request.name!r}. Expected "
                    "that the prompts of a call all begin with the same prefix. "
                    f"Received: prefix={request.prefix!r}, "
                    f"prompt={request.prompt!r}, and {prefix!r} before."
                )
        return prefix.rstrip()

    def _check_lengths(self, requests, prompts, prefix_length=0):
        limit = getattr(self.model.backbone, "max_sequence_length", None)
        for request, prompt in zip(requests, prompts, strict=True):
            length = prefix_length + len(prompt)
            total = length + self.max_new_tokens
            if not len(prompt):
                raise ValueError(
                    f"The prompt of {request.name!r} is empty. Expected at least one "
                    "token behind its prefix."
                )
            if limit is not None and total > limit:
                raise ValueError(
                    f"The prompt of {request.name!r} has {length} tokens; "
                    f"with max_new_tokens={self.max_new_tokens} that makes "
                    f"{total}, more than the {limit} of the model "
                    "(`max_sequence_length`). Shorten the few-shot prompt or "
                    "`max_new_tokens`, or leave the problem out."
                )

    def _key_data(self, seed):
        """The random key of a request, uint32 `(2,)`."""
        return np.random.SeedSequence([self.seed, *seed]).generate_state(2)

    def _next_token(self, logits, key_data, token_number):
        """Next tokens `(batch,)`.

        Args:
            logits: float array `(batch, vocabulary_size)`.
            key_data: uint32 array `(batch, 2)`.
            token_number: int array `(batch,)`. Tokens sampled before.
        """
        logits = logits.astype("float32")
        if self.temperature == 0:
            return jax.lax.platform_dependent(
                logits, cpu=_argmax_on_cpu, default=_argmax
            )
        # All of the vocabulary on each device: else each of the sums below would
        # be an exchange.
        logits = self._split(logits, self._batch_axis)
        top = jnp.max(logits, axis=-1, keepdims=True)
        token_ids = None
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            logits, token_ids = jax.lax.top_k(logits, self.top_k)
        weights = jnp.exp((logits - top) / self.temperature)
        if self.top_p is not None and self.top_p < 1:
            weights = _nucleus(weights, self.top_p)
        # One random number a row, not one a token of the vocabulary.
        keys = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        keys = jax.vmap(jax.random.fold_in)(keys, token_number)
        uniform = jax.vmap(jax.random.uniform)(keys)[:, None]
        # Rounding changes the sums even where weights are zero.
        sums = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0.0)
        choice = _first(sums >= (1 - uniform) * jnp.max(sums, axis=-1, keepdims=True))
        if token_ids is not None:
            choice = jnp.take_along_axis(token_ids, choice[:, None], axis=-1)[:, 0]
        return choice

    def _text(self, ids):
        return self.tokenizer.detokenize(list(ids)) if len(ids) else ""

    def _finished(self, ids: list[int], stop: Sequence[str]) -> Completion | None:
        """The completion if these ids hold all of it, else `None`."""
        kept = ids[: self.max_new_tokens]
        ended = self.tokenizer.end_token_id in kept
        if ended:
            kept = kept[: kept.index(self.tokenizer.end_token_id)]
        text = self._text(kept)
        num_tokens = len(kept) + ended
        stopped = any(s in text for s in stop)
        if stopped:
            # The first token that completes a stop string.
            num_tokens = bisect.bisect_left(
                range(len(kept)),
                True,
                key=lambda n: any(s in self._text(kept[:n]) for s in stop),
            )
            text = self._text(kept[:num_tokens])
            text = text[: min(text.index(s) for s in stop if s in text)]
        if not stopped and not ended and num_tokens < self.max_new_tokens:
            return None
        return Completion(
            text=text,
            num_tokens=num_tokens,
            finish_reason="stop" if stopped or ended else "length",
        )


def _argmax(logits):
    return jnp.argmax(logits, axis=-1).astype("int32")


def _argmax_on_cpu(logits):
    """`_argmax`, four times faster on CPU."""
    return _first(logits == jnp.max(logits, axis=-1, keepdims=True))


def _first(mask):
    """Index `(batch,)` of the first true of each row of `(batch, size)`.

    0 without a true (logits that are not numbers).
    """
    size = mask.shape[-1]
    places = jnp.arange(size, dtype="int32")
    return jnp.min(jnp.where(mask, places, size), axis=-1) % size


def _nucleus(weights, top_p):
    """Sets the weights outside of the likeliest `top_p` to zero.

    A weight stays if those above it sum to less than `top_p` of all. The lowest
    such weight is found by bisection, of the bits that stand for it: floats from
    0 to 1 have the order of these. For 50,400 tokens that is ten times faster on
    CPU than to sort them.

    Args:
        weights: float32 array `(batch, size)`, the highest of each row is 1.
        top_p: float. Above 0, below 1.

    Reference:
        [Holtzman et al.](https://arxiv.org/abs/1904.09751), section 3.1.
    """
    bits = jax.lax.bitcast_convert_type(weights, "int32")
    enough = top_p * jnp.sum(weights, axis=-1, keepdims=True)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        above = jnp.where(bits > middle, weights, 0.0)
        fits = jnp.sum(above, axis=-1, keepdims=True) < enough
        return jnp.where(fits, low, middle), jnp.where(fits, middle, high)

    one = int(np.float32(1).view("int32"))
    bounds = jnp.full_like(enough, -1, "int32"), jnp.full_like(enough, one, "int32")
    _, lowest = jax.lax.fori_loop(0, one.bit_length(), halve, bounds)
    return jnp.where(bits < lowest, 0.0, weights)
