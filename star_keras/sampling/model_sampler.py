"""The common part of the samplers of a KerasHub causal LM."""

import bisect
from collections.abc import Sequence

import keras
import keras_hub
from jax import numpy as jnp

from star_keras.config import RunConfig, SamplingConfig
from star_keras.distribution import CausalLMParallel
from star_keras.sampling.layout import MeshLayout
from star_keras.sampling.sampler import Completion, Sampler, SampleRequest
from star_keras.sampling.sampling_method import next_token
from star_keras.training.examples import tokenize_prompts
from star_keras.utils import memory
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked

# Most tokens that a compiled call decodes before the host reads the text.
DECODE_CHUNK = 16


class ModelSampler(Sampler):
    """Base class: arguments, tokenization, the next token, the end of a completion.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        max_new_tokens: int. Longest completion in tokens.
        batch_size: int. Rows decoded together; under a `keras.distribution` a
            multiple of its batch axis. Defaults to `64`.
        temperature: float. `0` (the default) is greedy.
        top_k: optional int. Sample among the `top_k` likeliest tokens.
        top_p: optional float. Sample among the likeliest tokens that together
            have this probability.
        seed: int. Seed of all samples, see `SampleRequest.seed`. Defaults to
            `0`.

    Attributes:
        tokenizer: The tokenizer of the model's preprocessor.
        end_token_ids: tuple of ints. Each of them ends a completion.
        layout: `MeshLayout` of the `keras.distribution` at construction.

    Raises:
        ValueError: if an argument is out of bounds, the logits of `batch_size` rows
            are larger than the memory, `top_k` or `top_p` is given
            with `temperature=0`, or the distribution cannot split the batch or
            the variables.
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
        if getattr(model, "preprocessor", None) is None:
            raise invalid("model", "a causal LM with a preprocessor", model)
        batch_size = checked(
            SamplingConfig, "sample_batch_size", batch_size, "batch_size"
        )
        config = SamplingConfig(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
        )
        # Each step has the logits of all rows.
        memory.check_fits(
            "batch_size", batch_size, 4 * model.backbone.vocabulary_size, "a row"
        )
        self.layout = MeshLayout.current()
        self.layout.check_batch_size(batch_size)
        self.model = model
        self.tokenizer = model.preprocessor.tokenizer
        self.end_token_ids = end_token_ids(self.tokenizer)
        self.max_new_tokens = config.max_new_tokens
        self.batch_size = batch_size
        self.temperature = config.temperature
        self.top_k = config.top_k
        self.top_p = config.top_p
        self.seed = checked(RunConfig, "seed", seed)

    def get_config(self):
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "seed": self.seed,
        }

    def next_token(self, logits, key_data, token_number):
        """Choose the next token of each row by the sampler's settings.

        Ids beyond the tokenizer, in vocabularies that are padded, are never chosen.

        Args:
            logits: float array `(batch, vocabulary_size)`.
            key_data: uint32 array `(batch, 2)`.
            token_number: int array `(batch,)`.

        Returns:
            int32 array `(batch,)`, see `sampling_method.next_token`.
        """
        logits = logits.astype("float32")
        size = self.tokenizer.vocabulary_size()
        if size < logits.shape[-1]:
            known = jnp.arange(logits.shape[-1]) < size
            logits = jnp.where(known, logits, -jnp.inf)
        if self.temperature:
            # The whole vocabulary on each device: else every sum over it would
            # be an exchange.
            logits = self.layout.constrain(logits, self.layout.batch_axis)
        return next_token(
            logits,
            key_data,
            token_number,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )

    def read_completion(
        self, ids: Sequence[int], stop: Sequence[str] = ()
    ) -> Completion | None:
        """The completion in sampled tokens.

        Args:
            ids: Token ids that follow the prompt, and possibly more after the
                end of the completion.
            stop: Strings that end a completion.

        Returns:
            `None` if the completion goes on after `ids`.
        """
        kept = list(ids[: self.max_new_tokens])
        ends = [i for i, token in enumerate(kept) if token in self.end_token_ids]
        ended = bool(ends)
        if ended:
            kept = kept[: ends[0]]
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

    def _text(self, ids):
        return self.tokenizer.detokenize(list(ids)) if len(ids) else ""

    # === Weights ===

    def _variables(self):
        """Values of the model's variables for the decoding of many tokens."""
        values = self._values()
        distribution = keras.distribution.distribution()
        if isinstance(distribution, CausalLMParallel):
            return distribution.without_zero(values, self.model.variables)
        return values

    def _values(self):
        return [v.value for v in self.model.variables]

    # === Requests ===

    def _prompt_ids(self, requests: Sequence[SampleRequest]) -> list[list[int]]:
        """Token ids of whole prompts, which are texts or ids already."""
        prompts = [request.prompt for request in requests]
        if isinstance(prompts[0], str):
            return tokenize_prompts(self.model.preprocessor, prompts)
        return [list(prompt) for prompt in prompts]

    def check(self, requests):
        if requests:
            self._check_lengths(requests, self._prompt_ids(requests))

    def _shared_length(self, requests: Sequence[SampleRequest], prompts) -> int:
        """Number of tokens of the shared prefix that all prompts begin with.

        Tokenizers join white space with its neighbours, so the end of a prefix may
        have other tokens in a prompt than alone. `prompts` are whole token ids.

        Returns:
            Fewer than the shortest prompt has tokens; 0 without a prefix.

        Raises:
            ValueError: if the requests have different prefixes, or a prompt does
                not begin with its prefix.
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
        if not prefix:
            return 0
        (ids,) = tokenize_prompts(self.model.preprocessor, [prefix])
        same = [len(set(column)) == 1 for column in zip(ids, *prompts, strict=False)]
        return min([*same, False].index(False), min(map(len, prompts)) - 1)

    def _check_lengths(self, requests, prompts):
        limit = max_sequence_length(self.model)
        for request, prompt in zip(requests, prompts, strict=True):
            length = len(prompt)
            total = length + self.max_new_tokens
            if not len(prompt):
                raise ValueError(
                    f"The prompt of {request.name!r} is empty. Expected at least one "
                    "token."
                )
            if limit is not None and total > limit:
                raise ValueError(
                    f"The prompt of {request.name!r} has {length} tokens; "
                    f"with max_new_tokens={self.max_new_tokens} that makes "
                    f"{total}, more than the {limit} of the model "
                    "(`max_sequence_length`). Shorten the few-shot prompt or "
                    "`max_new_tokens`, or leave the problem out."
                )


def end_token_ids(tokenizer) -> tuple[int, ...]:
    """All tokens that end a completion.

    Args:
        tokenizer: A `keras_hub.tokenizers.Tokenizer`. Its `end_token_ids` count, or
            else its `end_token_id` and KerasHub's `end_token2_id`, e.g. `<|eot_id|>`
            of Llama 3, and Gemma 3's `<end_of_turn>`.

    Returns:
        At least one token id.

    Raises:
        ValueError: if the tokenizer has no end token.
    """
    ids = getattr(tokenizer, "end_token_ids", None)
    if ids is None:
        names = "end_token_id", "end_token2_id"
        ids = [getattr(tokenizer, name, None) for name in names]
        if isinstance(tokenizer, keras_hub.tokenizers.Gemma3Tokenizer):
            ids.append(tokenizer.token_to_id("<end_of_turn>"))
    ids = tuple(dict.fromkeys(i for i in ids if i is not None))
    if not ids:
        raise invalid("model", "a tokenizer with an end token", type(tokenizer))
    return ids


def max_sequence_length(model) -> int | None:
    """The longest sequence in tokens that a causal LM is made for.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.

    Returns:
        That of its backbone, else that of its tokenizer; `None` if neither says.
    """
    parts = model.backbone, model.preprocessor.tokenizer
    limits = (getattr(part, "max_sequence_length", None) for part in parts)
    return next((limit for limit in limits if limit), None)


def with_variables(model, variables):
    """A scope in which a model computes with other values of its variables.

    Args:
        model: A built Keras model.
        variables: One array for each of `model.variables`.

    Returns:
        A `keras.StatelessScope`.
    """
    return keras.StatelessScope(
        state_mapping=list(zip(model.variables, variables, strict=True))
    )
