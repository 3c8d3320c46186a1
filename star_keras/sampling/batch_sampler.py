"""A sampler that decodes fixed batches, for any KerasHub causal LM."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax import numpy as jnp

from star_keras.models import GPTJCausalLM
from star_keras.packing import tokenize_prompts
from star_keras.sampling.model_sampler import ModelSampler
from star_keras.sampling.sampler import Completion, SampleRequest

# Prompts are prefilled, and caches made, at multiples of this.
_BUCKET = 16
# Decoding steps between two looks at the text.
_BURST = 16


class BatchSampler(ModelSampler):
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

    def __init__(self, model, **kwargs):
        super().__init__(model, **kwargs)
        self._row_positions = isinstance(model, GPTJCausalLM)
        self._prefill = jax.jit(self._prefill_step, static_argnums=2)
        self._decode = jax.jit(
            self._decode_burst, static_argnames="num_steps", donate_argnums=(1, 2)
        )

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
        keys = np.stack([self._key_data(seeds[i]) for i in filled])

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
                    done[row] = self._finished(
                        ids[row, lengths[row] : end].tolist(), stop
                    )
            if None not in done:
                break
        return done

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


def _round_up(length):
    return -(-length // _BUCKET) * _BUCKET
