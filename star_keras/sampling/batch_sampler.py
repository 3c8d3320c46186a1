"""A sampler that decodes fixed batches, for any KerasHub causal LM."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import PartitionSpec

from star_keras.packing import tokenize_prompts
from star_keras.sampling.model_sampler import ModelSampler
from star_keras.sampling.sampler import Completion, SampleRequest

# Prompts are prefilled, and caches made, at multiples of this.
_BUCKET = 16
# Decoding steps between two looks at the text.
_BURST = 16


class BatchSampler(ModelSampler):
    """Decodes prompts in batches of similar length.

    Works with every KerasHub `CausalLM` that has `call_with_cache`. A batch
    has one position for all its rows: it starts at the shortest prompt, and
    the rest of the longer ones is fed token by token. The shared prefix is
    computed for one row and copied to the others.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        **kwargs: See `ModelSampler`.
    """

    def __init__(self, model, **kwargs):
        super().__init__(model, **kwargs)
        self._prefill = jax.jit(self._prefill_step, static_argnames=("total", "shared"))
        self._decode = jax.jit(self._decode_burst, donate_argnums=(1, 2))

    def sample(
        self, requests: Sequence[SampleRequest], *, stop: Sequence[str] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        if not requests:
            return
        prompts = self._prompt_ids(requests)
        self._check_lengths(requests, prompts)
        # Not every tokenizer gives the prefix alone the tokens it has in a
        # prompt.
        (prefix,) = tokenize_prompts(
            self.model.preprocessor, [self._shared_prefix(requests)]
        )
        same = [len(set(ids)) == 1 for ids in zip(prefix, *prompts, strict=False)]
        shared = [*same, False].index(False)
        variables = self._variables()
        order = sorted(range(len(requests)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            completions = self._sample_batch(
                variables,
                [prompts[i] for i in batch],
                [requests[i].seed for i in batch],
                stop,
                shared,
            )
            yield list(zip(batch, completions, strict=True))

    def _sample_batch(self, variables, prompts, seeds, stop, shared):
        rows = self.batch_size
        lengths = np.array([len(p) for p in prompts], "int32")
        longest, shortest = int(lengths.max()), int(lengths.min())
        total = _round_up(longest + self.max_new_tokens)
        limit = getattr(self.model.backbone, "max_sequence_length", None)
        if limit:
            total = min(total, limit)
        # A short batch is filled up with copies of its first row.
        filled = list(range(len(prompts))) + [0] * (rows - len(prompts))
        token_ids = np.zeros((rows, total), "int32")
        for row, i in enumerate(filled):
            token_ids[row, : lengths[i]] = prompts[i]
        row_lengths = lengths[filled]
        key_data = np.stack([self._key_data(seeds[i]) for i in filled])

        # Prefill leaves out a prompt's last token: it is the first input of
        # the decoding steps.
        length = max(shortest - 1 - (shortest - 1) % _BUCKET, 1)
        cache = self._prefill(
            variables, token_ids[:, :length], total=total, shared=min(shared, length)
        )
        position = jnp.asarray(min(length, shortest - 1), "int32")
        done: list[Completion | None] = [None] * len(prompts)
        token_ids = jnp.asarray(token_ids)
        for _ in range(0, total, _BURST):
            token_ids, cache, position = self._decode(
                variables, token_ids, cache, position, row_lengths, key_data
            )
            written = int(position) + 1
            ids = np.asarray(token_ids)
            for row, start in enumerate(lengths):
                if done[row] is None:
                    new_ids = ids[row, start : max(written, start)].tolist()
                    done[row] = self._finished(new_ids, stop)
            if None not in done:
                break
        return done

    # === Compiled ===

    def _prefill_step(self, variables, token_ids, total, shared):
        rows, length = token_ids.shape
        # Only the cache's shapes are wanted, not its stock prefill.
        with self._with_variables(variables):
            _, cache = jax.eval_shape(
                self.model._build_cache,
                jax.ShapeDtypeStruct((1 if shared else rows, total), "int32"),
            )
            cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), cache)
            if shared:
                _, _, cache = self.model.call_with_cache(
                    token_ids[:1, :shared], cache, 0
                )
                cache = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), cache)
            if shared < length:
                _, _, cache = self.model.call_with_cache(
                    token_ids[:, shared:], cache, shared
                )
        return self._split_rows(cache)

    def _decode_burst(self, variables, token_ids, cache, position, lengths, key_data):
        rows, total = token_ids.shape

        def step(_, state):
            token_ids, cache, position = state
            logits, _, cache = self.model.call_with_cache(
                jax.lax.dynamic_slice_in_dim(token_ids, position, 1, axis=1),
                cache,
                position,
            )
            # The last place of the array is written again and again.
            after = jnp.minimum(position + 1, total - 1)
            sampled = self._next_token(logits[:, 0], key_data, after - lengths)
            is_prompt = (after < lengths) | (position + 1 > after)
            token = jnp.where(is_prompt, token_ids[:, after], sampled)
            return token_ids.at[:, after].set(token), cache, after

        with self._with_variables(variables):
            token_ids, cache, position = jax.lax.fori_loop(
                0, _BURST, step, (token_ids, cache, position)
            )
        # Every process reads the tokens.
        return self._split(token_ids), self._split_rows(cache), position

    def _split_rows(self, cache):
        """Rows over the mesh's batch axis, and what follows as XLA finds best."""
        rest = [PartitionSpec.UNCONSTRAINED] * (jax.tree.leaves(cache)[0].ndim - 1)
        return self._split(cache, self._batch_axis, *rest)


def _round_up(length):
    return -(-length // _BUCKET) * _BUCKET
