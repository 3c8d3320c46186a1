"""A sampler that decodes fixed batches, for any KerasHub causal LM."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import PartitionSpec

from star_keras.models.max_sequence_length import max_sequence_length
from star_keras.models.with_variables import with_variables
from star_keras.sampling.log_probs import token_log_probs
from star_keras.sampling.model_sampler import DECODE_CHUNK, ModelSampler
from star_keras.sampling.sampler import Completion, SampleRequest
from star_keras.utils.texts import check_stop

# Lengths of prefilled prompts and of caches are multiples of this.
_MULTIPLE = 16


class BatchSampler(ModelSampler):
    """Decodes prompts in batches of similar length.

    Works with every KerasHub `CausalLM` that has `call_with_cache`. All rows of
    a batch are at the same position. The first position is the end of the
    shortest prompt; the rest of a longer prompt is fed token by token. The
    shared prefix is computed for one row and copied to the others, and so are equal
    prompts of a batch.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        **kwargs: See `ModelSampler`.

    Raises:
        ValueError: see `ModelSampler`.

    Example:
    ```python
    sampler = BatchSampler(model, max_new_tokens=16, batch_size=8)
    requests = [SampleRequest(prompt="Q: 1 + 1?\\nA:", name="sum")]
    for batch in sampler.sample(requests, stop=["\\n"]):
        for index, completion in batch:
            print(requests[index].name, completion.text)
    ```
    """

    def __init__(self, model, **kwargs):
        super().__init__(model, **kwargs)
        self._prefill = jax.jit(self._prefill_step, static_argnames=("total", "shared"))
        self._decode = jax.jit(self._decode_chunk, donate_argnums=(1, 2, 6))

    def sample(
        self, requests: Sequence[SampleRequest], *, stop: Sequence[str] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        check_stop(stop)
        if not requests:
            return
        tokenized = self.tokenize(requests)
        variables = self._variables()
        order = np.argsort(tokenized.lengths, kind="stable")
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size].tolist()
            completions = self._sample_batch(variables, tokenized, batch, stop)
            yield list(zip(batch, completions, strict=True))

    def _sample_batch(self, variables, tokenized, batch, stop):
        rows, prefix_ids = self.batch_size, tokenized.prefix_ids
        prompts = [prefix_ids + tokenized[i] for i in batch]
        wants_log_probs = tokenized.log_probs[batch]
        lengths = np.array([len(p) for p in prompts], "int32")
        longest, shortest = int(lengths.max()), int(lengths.min())
        total = _round_up(longest + self.max_new_tokens)
        limit = max_sequence_length(self.model)
        if limit:
            total = min(total, limit)
        # A short batch is filled up with copies of its first row.
        filled = list(range(len(prompts))) + [0] * (rows - len(prompts))
        token_ids = np.zeros((rows, total), "int32")
        for row, i in enumerate(filled):
            token_ids[row, : lengths[i]] = prompts[i]
        row_lengths = lengths[filled]
        key_data = tokenized.key_data[batch][filled]

        # Prefill leaves out a prompt's last token: it is the first input of
        # the decoding steps.
        length = max(shortest - 1 - (shortest - 1) % _MULTIPLE, 1)
        prompt_ids, source = _without_copies(token_ids[:, :length])
        cache = self._prefill(
            variables,
            prompt_ids,
            source,
            total=total,
            shared=min(len(prefix_ids), length),
        )
        position = jnp.asarray(min(length, shortest - 1), "int32")
        done: list[Completion | None] = [None] * len(prompts)
        token_ids = jnp.asarray(token_ids)
        log_probs = None
        if wants_log_probs.any():
            log_probs = jnp.zeros(token_ids.shape, "float32")
        for _ in range(0, total, DECODE_CHUNK):
            token_ids, cache, position, log_probs = self._decode(
                variables, token_ids, cache, position, row_lengths, key_data, log_probs
            )
            written = int(position) + 1
            ids, values = np.asarray(token_ids), np.asarray(log_probs)
            for row, start in enumerate(lengths):
                if done[row] is None:
                    new = np.s_[row, start : max(written, start)]
                    known = values[new].tolist() if wants_log_probs[row] else None
                    done[row] = self.reader.read(ids[new].tolist(), stop, known)
            if None not in done:
                break
        return done

    # === Compiled ===

    def _prefill_step(self, variables, token_ids, source, total, shared):
        """The cache of rows; with a `source`, row i is `source[i]` of `token_ids`."""
        rows, length = token_ids.shape
        # Only the shapes of KerasHub's own prefill are used.
        with with_variables(self.model, variables):
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
            if source is not None:
                cache = jax.tree.map(lambda x: jnp.take(x, source, axis=0), cache)
        return self._split_rows(cache)

    def _decode_chunk(
        self, variables, token_ids, cache, position, lengths, key_data, log_probs
    ):
        total = token_ids.shape[1]

        def step(_, state):
            token_ids, cache, position, log_probs = state
            logits, _, cache = self.model.call_with_cache(
                jax.lax.dynamic_slice_in_dim(token_ids, position, 1, axis=1),
                cache,
                position,
            )
            # Steps after the end of the array write its last token again.
            after = jnp.minimum(position + 1, total - 1)
            sampled = self.next_token(logits[:, 0], key_data, after - lengths)
            is_prompt = (after < lengths) | (position + 1 > after)
            token = jnp.where(is_prompt, token_ids[:, after], sampled)
            if log_probs is not None:
                new = token_log_probs(logits[:, 0], token)
                new = jnp.where(position + 1 > after, log_probs[:, after], new)
                log_probs = log_probs.at[:, after].set(new)
            return token_ids.at[:, after].set(token), cache, after, log_probs

        with with_variables(self.model, variables):
            token_ids, cache, position, log_probs = jax.lax.fori_loop(
                0, DECODE_CHUNK, step, (token_ids, cache, position, log_probs)
            )
        # Every process reads the tokens.
        token_ids, log_probs = self.layout.constrain((token_ids, log_probs))
        return token_ids, self._split_rows(cache), position, log_probs

    def _split_rows(self, cache):
        """Split the rows over the mesh's batch axes; XLA lays out the other axes."""
        rest = [PartitionSpec.UNCONSTRAINED] * (jax.tree.leaves(cache)[0].ndim - 1)
        return self.layout.constrain(cache, self.layout.batch_axes, *rest)


def _without_copies(prompts):
    """Half of the rows, a quarter or less, and which of them each row is.

    Or all rows and `None`, where there are too few equal ones.
    """
    different, source = np.unique(prompts, axis=0, return_inverse=True)
    count = len(prompts)
    while count % 2 == 0 and count // 2 >= len(different):
        count //= 2
    if count == len(prompts):
        return prompts, None
    filling = np.zeros((count - len(different), prompts.shape[1]), "int32")
    return np.concatenate([different, filling]), source.astype("int32")


def _round_up(length):
    return -(-length // _MULTIPLE) * _MULTIPLE
