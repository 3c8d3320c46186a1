"""The common part of the samplers of a KerasHub causal LM."""

import itertools
import numbers
from collections.abc import Sequence

import keras
import numpy as np
from jax import numpy as jnp

from star_keras.config import RunConfig, SamplingConfig
from star_keras.distribution import CausalLMParallel
from star_keras.models.max_sequence_length import max_sequence_length
from star_keras.sampling.layout import MeshLayout
from star_keras.sampling.merged_lora import merged_values
from star_keras.sampling.request_settings import next_token_by_row
from star_keras.sampling.sampler import Sampler, SampleRequest
from star_keras.sampling.sampling_methods import Greedy, sampling_method
from star_keras.sampling.stopping import CompletionReader
from star_keras.sampling.tokenized_requests import TokenizedRequests
from star_keras.training.examples import tokenize_prompts
from star_keras.utils import memory
from star_keras.utils.errors import invalid
from star_keras.utils.settings import checked_setting

# Most tokens that a compiled call decodes before the host reads the text.
DECODE_CHUNK = 16
# Tokenizers need a hundred times the memory of their texts.
_TOKENIZED_AT_ONCE = 256


class ModelSampler(Sampler):
    """Base class: arguments, weights, the tokens of prompts, the next token.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        max_new_tokens: int. Longest completion in tokens.
        batch_size: int. Rows decoded together; under a `keras.distribution` a
            multiple of its batch axis. Defaults to `64`.
        temperature: float. `0` (the default) is greedy.
        top_k: optional int. Sample among the `top_k` likeliest tokens.
        top_p: optional float. Sample among the likeliest tokens that together
            have this probability.
        min_p: optional float. Sample among the tokens of at least `min_p` times the
            highest probability.
        seed: int. Seed of all samples, see `SampleRequest.seed`. Defaults to
            `0`.

    Attributes:
        tokenizer: The tokenizer of the model's preprocessor.
        method: `Greedy` or `Temperature`, see `star_keras.sampling.sampling_methods`.
        reader: `CompletionReader`, which finds the end of completions.
        layout: `MeshLayout` of the `keras.distribution` at construction.

    Raises:
        ValueError: if an argument is out of bounds, the logits of `batch_size` rows
            are larger than the memory, `top_k`, `top_p` or `min_p` is given with
            `temperature=0`, or the distribution cannot split the batch or
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
        min_p=None,
        seed=0,
    ):
        if getattr(model, "preprocessor", None) is None:
            raise invalid("model", "a causal LM with a preprocessor", model)
        self.max_new_tokens = checked_setting(
            SamplingConfig, "max_new_tokens", max_new_tokens
        )
        self.batch_size = checked_setting(
            SamplingConfig, "sample_batch_size", batch_size, "batch_size"
        )
        self.seed = checked_setting(RunConfig, "seed", seed)
        choices = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
        }
        choices = {k: checked_setting(SamplingConfig, k, v) for k, v in choices.items()}
        self.method = sampling_method(**choices)
        # Each step has the logits of all rows.
        memory.check_fits(
            "batch_size", batch_size, 4 * model.backbone.vocabulary_size, "a row"
        )
        self.layout = MeshLayout.current()
        self.layout.check_batch_size(batch_size)
        self.model = model
        self.tokenizer = model.preprocessor.tokenizer
        self.reader = CompletionReader(self.tokenizer, self.max_new_tokens)
        self._choices = choices

    def get_config(self):
        return {
            "max_new_tokens": self.max_new_tokens,
            **self._choices,
            "seed": self.seed,
        }

    def next_token(self, logits, key_data, token_number, *choices):
        """Choose the next token of each row by the sampler's settings, or its own.

        Ids beyond the tokenizer, in vocabularies that are padded, are never chosen.

        Args:
            logits: float array `(batch, vocabulary_size)`.
            key_data: uint32 array `(batch, 2)`.
            token_number: int array `(batch,)`.
            *choices: See `next_token_by_row`. Defaults to the sampler's settings.

        Returns:
            int32 array `(batch,)`.
        """
        size = self.tokenizer.vocabulary_size()
        if size < logits.shape[-1]:
            known = jnp.arange(logits.shape[-1]) < size
            logits = jnp.where(known, logits, -jnp.inf)
        if choices or self.method != Greedy():
            # The whole vocabulary on each device: else every sum over it would
            # be an exchange.
            logits = self.layout.constrain(logits, self.layout.batch_axes)
        if choices:
            return next_token_by_row(logits, key_data, token_number, *choices)
        return self.method.next_token(logits, key_data, token_number)

    # === Weights ===

    def _variables(self):
        """Values of the model's variables for the decoding of many tokens."""
        values = self._values()
        distribution = keras.distribution.distribution()
        if isinstance(distribution, CausalLMParallel):
            return distribution.without_zero(values, self.model.variables)
        return values

    def _values(self):
        return merged_values(self.model)

    # === Requests ===

    def tokenize(self, requests: Sequence[SampleRequest]) -> TokenizedRequests:
        """Token ids, random keys and flags of requests.

        Args:
            requests: At least one request. Each is read once, in order.

        Raises:
            ValueError: see `tokenize_prompts`; if the requests are no sequence or have
                different prefixes, or a prompt does not begin with its prefix.
        """
        if not isinstance(requests, Sequence):
            raise invalid("requests", "a sequence of `SampleRequest`", requests)
        first, prefix_ids = requests[0], []
        if first.prefix:
            (prefix_ids,) = self._tokenize(first, [first.prefix])
        return TokenizedRequests(self._with_ids(requests), prefix_ids, self.seed)

    def tokenize_prompts(
        self, requests: Sequence[SampleRequest], max_new_tokens: int | None = None
    ) -> list[list[int]]:
        """Token ids of whole prompts.

        Args:
            requests: At least one request. Their prompts are all texts or all ids.
            max_new_tokens: Longest completion. Defaults to the sampler's.

        Raises:
            ValueError: if a prompt is neither a text nor token ids, some are texts and
                others are not, or one is empty or leaves no room for the completion.
        """
        return [ids for _, ids in self._with_ids(requests, max_new_tokens)]

    def _with_ids(self, requests, max_new_tokens=None):
        """Pairs of a request and its token ids, tokenized a few at a time."""
        first, rest = requests[0], iter(requests)
        while several := list(itertools.islice(rest, _TOKENIZED_AT_ONCE)):
            prompts = [request.prompt for request in (first, *several)]
            if all(isinstance(prompt, str) for prompt in prompts):
                texts = list(dict.fromkeys(prompts[1:]))
                known = dict(zip(texts, self._tokenize(first, texts), strict=True))
                ids = [known[prompt] for prompt in prompts[1:]]
            else:
                _, *ids = (
                    self.checked_ids(
                        "prompt",
                        request.prompt,
                        f"Correct the request {request.name!r}. The prompts of a call "
                        "are all token ids, or all texts.",
                    )
                    for request in (first, *several)
                )
            self._check_lengths(several, ids, max_new_tokens or self.max_new_tokens)
            yield from zip(several, ids, strict=True)

    def checked_ids(self, name: str, ids: Sequence[int], remedy: str = "") -> list[int]:
        """Token ids as a list.

        Args:
            name: The argument, for the error.
            ids: The ids.
            remedy: See `invalid`.

        Raises:
            ValueError: if they are no sequence of integers, or one of them is not in
                the vocabulary of the model.
        """
        size = self.model.backbone.vocabulary_size
        wrong = ids
        if isinstance(ids, Sequence | np.ndarray) and not isinstance(ids, str | bytes):
            ids = list(ids)
            # By type: there are as many ids as a run has tokens of prompts.
            others = {kind for kind in set(map(type, ids)) if not _is_integer(kind)}
            if not others and (not ids or 0 <= min(ids) <= max(ids) < size):
                return ids
            wrong = next(i for i in ids if type(i) in others or not 0 <= i < size)
        rule = f"token ids from 0 to {size - 1}, the vocabulary of the model"
        raise invalid(name, rule, wrong, remedy)

    def check(self, requests):
        if requests:
            self.tokenize_prompts(requests)

    def _tokenize(self, first, texts):
        preprocessor, start = self.model.preprocessor, first.add_start_token
        return tokenize_prompts(preprocessor, texts, add_start_token=start)

    def _check_lengths(self, requests, prompts, max_new_tokens):
        limit = max_sequence_length(self.model)
        for request, prompt in zip(requests, prompts, strict=True):
            length, total = len(prompt), len(prompt) + max_new_tokens
            if not length:
                raise ValueError(
                    f"The prompt of {request.name!r} is empty. Expected at least one "
                    "token."
                )
            if limit is not None and total > limit:
                raise ValueError(
                    f"The prompt of {request.name!r} has {length} tokens; "
                    f"with max_new_tokens={max_new_tokens} that makes "
                    f"{total}, more than the {limit} of the model "
                    "(`max_sequence_length`). Shorten the few-shot prompt or "
                    "`max_new_tokens`, or leave the problem out."
                )


def _is_integer(kind):
    return issubclass(kind, numbers.Integral) and kind is not bool
