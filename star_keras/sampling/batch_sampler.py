"""A sampler that decodes fixed batches, for any KerasHub causal LM."""

import functools
from collections.abc import Iterator, Sequence

import jax
import keras
import numpy as np
from jax import numpy as jnp

from star_keras.models import GPTJCausalLM
from star_keras.packing import tokenize_prompts
from star_keras.sampling.sampler import Completion, Sampler, SampleRequest

# Prompts are prefilled, and caches made, at multiples of this.
_BUCKET = 16
# Decoding steps between two looks at the text.
_BURST = 16


class BatchSampler(Sampler):
    """Decodes prompts in batches of similar length.

    Works with every KerasHub `CausalLM` that has `call_with_cache`. GPT-J
    rows each have a position of their own. Other models have one position for
    the whole batch: it starts at the batch's shortest prompt, and the rest of
    the longer prompts is fed token by token.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        max_new_tokens: int. Longest completion in tokens.
        batch_size: int. Rows decoded together.
        temperature: float. `0` (the default) is greedy.
        top_k: optional int. Sample among the `k` likeliest tokens.
        top_p: optional float. Sample among the likeliest tokens that together
            have this probability.
        seed: int. See `SampleRequest.seed`.
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
        self.model = model
        self.tokenizer = model.preprocessor.tokenizer
        self.max_new_tokens = max_new_tokens
        self.batch_size = batch_size
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self.seed = seed
        self._row_positions = isinstance(model, GPTJCausalLM)
        self._prefill = jax.jit(self._prefill_step, static_argnums=2)
        self._decode = jax.jit(
            self._decode_burst, static_argnames="num_steps", donate_argnums=(1, 2)
        )

    def get_config(self):
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "seed": self.seed,
        }

    def sample(
        self, requests: Sequence[SampleRequest], *, stop: Sequence[str] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        if not requests:
            return
        prompts = tokenize_prompts(
            self.model.preprocessor, [request.prompt for request in requests]
        )
        self._check_lengths(requests, prompts)
        variables = [v.value for v in self.model.variables]
        order = sorted(range(len(requests)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            completions = self._sample_batch(
                variables,
                [prompts[i] for i in batch],
                [requests[i].seed for i in batch],
                stop,
            )
            yield list(zip(batch, completions, strict=True))

    def _check_lengths(self, requests, prompts):
        limit = getattr(self.model.backbone, "max_sequence_length", None)
        for request, prompt in zip(requests, prompts, strict=True):
            length = len(prompt) + self.max_new_tokens
            if not len(prompt):
                raise ValueError(
                    f"The prompt of {request.name!r} is empty. Expected at least one "
                    "token."
                )
            if limit is not None and length > limit:
                raise ValueError(
                    f"The prompt of {request.name!r} has {len(prompt)} tokens; "
                    f"with max_new_tokens={self.max_new_tokens} that makes "
                    f"{length}, more than the {limit} of the model "
                    "(`max_sequence_length`). Shorten the few-shot prompt or "
                    "`max_new_tokens`, or leave the problem out."
                )

    def _sample_batch(self, variables, prompts, seeds, stop):
        rows = self.batch_size
        lengths = np.array([len(p) for p in prompts], "int32")
        longest, shortest = int(lengths.max()), int(lengths.min())
        total = _round_up(longest + self.max_new_tokens)
        # A short batch is filled up with copies of its first row.
        filled = list(range(len(prompts))) + [0] * (rows - len(prompts))
        token_ids = np.zeros((rows, total), "int32")
        for row, i in enumerate(filled):
            token_ids[row, : lengths[i]] = prompts[i]
        row_lengths = lengths[filled]

        # Prefill leaves out a prompt's last token: it is the first input of
        # the decoding steps.
        if self._row_positions:
            prefill_length = min(_round_up(longest), total)
            position = jnp.asarray(row_lengths - 1)
        else:
            prefill_length = max(shortest - 1 - (shortest - 1) % _BUCKET, 1)
            position = jnp.asarray(min(prefill_length, shortest - 1), "int32")
        cache = self._prefill(variables, token_ids[:, :prefill_length], total)
        keys = jnp.stack([self._key(seeds[i]) for i in filled])

        done: list[Completion | None] = [None] * len(prompts)
        token_ids = jnp.asarray(token_ids)
        for _ in range(0, total, _BURST):
            token_ids, cache, position = self._decode(
                variables,
                token_ids,
                cache,
                position,
                row_lengths,
                keys,
                num_steps=_BURST,
            )
            written = np.broadcast_to(np.asarray(position) + 1, (rows,))
            ids = np.asarray(token_ids)
            for row in range(len(prompts)):
                if done[row] is None:
                    end = min(written[row], lengths[row] + self.max_new_tokens)
                    done[row] = self._finished(ids[row, lengths[row] : end], stop)
            if None not in done:
                break
        return done

    def _finished(self, ids, stop) -> Completion | None:
        """The completion if these ids hold all of it, else `None`."""
        ends = np.flatnonzero(ids == self.tokenizer.end_token_id)
        kept = ids[: ends[0]] if len(ends) else ids
        text = self.tokenizer.detokenize(kept.tolist()) if len(kept) else ""
        stops = [at for at in (text.find(s) for s in stop) if at >= 0]
        if stops:
            text = text[: min(stops)]
        if not stops and not len(ends) and len(ids) < self.max_new_tokens:
            return None
        return Completion(
            text=text,
            num_tokens=min(len(kept) + 1, self.max_new_tokens),
            finish_reason="stop" if stops or len(ends) else "length",
        )

    def _key(self, seed):
        return functools.reduce(jax.random.fold_in, seed, jax.random.key(self.seed))

    def _with_variables(self, variables):
        return keras.StatelessScope(
            state_mapping=list(zip(self.model.variables, variables, strict=True))
        )

    def _prefill_step(self, variables, token_ids, total):
        with self._with_variables(variables):
            if self._row_positions:
                cache = self.model.build_cache(token_ids.shape[0], total)
            else:
                # Only the cache's shapes are wanted, not its stock prefill.
                _, cache = jax.eval_shape(
                    self.model._build_cache,
                    jax.ShapeDtypeStruct((token_ids.shape[0], total), "int32"),
                )
                cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), cache)
            _, _, cache = self.model.call_with_cache(token_ids, cache, 0)
        return cache

    def _decode_burst(
        self, variables, token_ids, cache, position, lengths, keys, num_steps
    ):
        rows = jnp.arange(token_ids.shape[0])

        def step(_, state):
            token_ids, cache, position = state
            at = jnp.broadcast_to(position, rows.shape)
            logits, _, cache = self.model.call_with_cache(
                token_ids[rows, at][:, None], cache, position
            )
            # The place after the end of the array takes what is not wanted.
            after = jnp.minimum(at + 1, token_ids.shape[1] - 1)
            sampled = self._next_token(logits[:, 0], keys, after - lengths)
            is_prompt = (after < lengths) | (at + 1 > after)
            token = jnp.where(is_prompt, token_ids[rows, after], sampled)
            token_ids = token_ids.at[rows, after].set(token)
            position = jnp.minimum(position + 1, token_ids.shape[1] - 1)
            return token_ids, cache, position

        with self._with_variables(variables):
            return jax.lax.fori_loop(0, num_steps, step, (token_ids, cache, position))

    def _next_token(self, logits, keys, token_number):
        """Next tokens `(batch,)` from logits `(batch, vocabulary_size)`."""
        logits = logits.astype("float32")
        if self.temperature == 0:
            return jnp.argmax(logits, axis=-1).astype("int32")
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            lowest = jax.lax.top_k(logits, self.top_k)[0][:, -1:]
            logits = jnp.where(logits < lowest, -jnp.inf, logits)
        if self.top_p is not None and self.top_p < 1:
            ordered = jnp.sort(logits, axis=-1, descending=True)
            before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1)
            before = before - jax.nn.softmax(ordered)
            # The likeliest token is always among them.
            inside = before < self.top_p
            lowest = jnp.min(
                jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True
            )
            logits = jnp.where(logits < lowest, -jnp.inf, logits)
        keys = jax.vmap(jax.random.fold_in)(keys, token_number)
        return jax.vmap(jax.random.categorical)(keys, logits).astype("int32")


def _round_up(length):
    return -(-length // _BUCKET) * _BUCKET
