"""The compiled steps of `ContinuousSampler`: prefill and decode."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

from star_keras.models.forward import build_cache, extend_cache, head
from star_keras.models.with_variables import with_variables
from star_keras.sampling.layout import MeshLayout
from star_keras.sampling.log_probs import (
    TOP_LOG_PROBS,
    token_log_probs,
    top_log_probs,
)
from star_keras.sampling.model_sampler import DECODE_CHUNK
from star_keras.sampling.ring_cache import (
    RingCache,
    cache_size,
    prefix_size,
    prompt_size,
    token_positions,
)


class ContinuousSteps:
    """Compiled functions on the caches of a causal LM.

    `decode` extends a `RingCache`; `prefill` makes a cache whose rows are prompts.

    The shared prefix is `()`, or a pair: a cache of one row, and its number of tokens.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family, with a preprocessor.
        next_token: Callable `(logits, key_data, token_number, *choices) -> tokens`,
            see `ModelSampler.next_token`.
        end_token_ids: tuple of ints. Each of them ends a completion.
        layout: `MeshLayout`. Slots are split over its batch axis, and heads
            like the weights of the model.

    Attributes:
        cast: `(matrix) -> matrix` in the compute dtype of the model.
        prefill: See `_prefill`.
        decode: See `_decode`. Donates the cache.
        decode_with_log_probs: `decode`, with the log-probabilities of the tokens.
        decode_with_top_log_probs: `decode`, with those of the likeliest tokens too.
        ring: `RingCache`, the cache that `decode` extends.

    The first five are functions of `jax.jit` with the arguments of the method.
    """

    def __init__(self, model, *, next_token, end_token_ids, layout: MeshLayout):
        self.model = model
        self.next_token = next_token
        self.layout = layout
        self._end_token_ids = end_token_ids
        self.ring = RingCache(model, layout)
        self.cast = jax.jit(lambda x: x.astype(model.compute_dtype))
        self.prefill = jax.jit(self._prefill)
        self.decode = jax.jit(self._decode, donate_argnums=1)
        self.decode_with_log_probs = jax.jit(
            functools.partial(self._decode, log_probs=True), donate_argnums=1
        )
        self.decode_with_top_log_probs = jax.jit(
            functools.partial(self._decode, log_probs=True, top=True), donate_argnums=1
        )

    def shared_prefix(self, variables, prefix_ids) -> tuple:
        """The shared prefix of token ids, `()` for none."""
        if not prefix_ids:
            return ()
        length = len(prefix_ids)
        token_ids = np.zeros((1, prefix_size(length)), "int32")
        token_ids[0, :length] = prefix_ids
        return self.prefill(variables, token_ids, ()), np.int32(length)

    def lower(
        self,
        variables,
        *,
        slots,
        group_size,
        prefix_length,
        prompt_length,
        cache_length,
    ):
        """Lower `prefill` and `decode` from shapes alone.

        Args:
            variables: `jax.ShapeDtypeStruct` of each variable of the model.
            slots: int. Number of slots.
            group_size: int. Prompts that are prefilled together.
            prefix_length: int. Tokens of the shared prefix, 0 for none.
            prompt_length: int. Tokens of the longest prompt behind the prefix.
            cache_length: int. Tokens of a prompt and its completion so far.

        Returns:
            A dict of `jax.stages.Lowered`: `"prefill"` and `"decode"`.
        """
        batch_axes, heads_axis = self.layout.batch_axes, self.ring.heads_axis

        def cache(batch_size, length, *axes):
            sharding = self.layout.sharding(*axes)
            return jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                jax.eval_shape(lambda: build_cache(self.model, batch_size, length)),
            )

        def array(dtype, *shape):
            return jax.ShapeDtypeStruct(shape, dtype)

        prefix = ()
        if prefix_length:
            prefix_cache = cache(1, prefix_size(prefix_length), None, heads_axis)
            prefix = (prefix_cache, array("int32"))
        prompts = array("int32", group_size, prompt_size(prompt_length))
        return {
            "prefill": self.prefill.lower(variables, prompts, prefix),
            "decode": self.decode.lower(
                variables,
                cache(slots, cache_size(cache_length), batch_axes, heads_axis),
                array("int32"),
                prefix,
                *(array("int32", slots) for _ in range(4)),
                array("bool", slots),
                array("uint32", slots, 2),
                (),
                array("int32"),
            ),
        }

    # === Compiled ===

    def _prefill(self, variables, token_ids, prefix):
        """Compute the caches of prompts.

        Args:
            variables: List of arrays. Values of the variables of the model.
            token_ids: int32 array `(group_size, length)`, padded right.
            prefix: The shared prefix.

        Returns:
            A cache with a row for each prompt, the first token at index 0.
        """
        # Each device of the batch axes computes its rows, and all get the caches: a
        # slot may be anywhere. A prefix is one row.
        if len(token_ids) % self.layout.batch_devices == 0:
            token_ids = self.layout.constrain(token_ids, self.layout.batch_axes)
        with with_variables(self.model, variables):
            cache = build_cache(self.model, *token_ids.shape)
            shared = _prefix_arguments(prefix)
            _, cache = extend_cache(self.model, token_ids, cache, 0, **shared)
        return self.layout.constrain(cache, None, self.ring.heads_axis)

    def _decode(
        self,
        variables,
        cache,
        write_index,
        prefix,
        token,
        position,
        count,
        limit,
        active,
        key_data,
        choices,
        enough,
        log_probs=False,
        top=False,
    ):
        """Decode a chunk: at most `DECODE_CHUNK` tokens a slot.

        A slot becomes inactive at its end token or its `limit`. The
        chunk ends early when `enough` slots have become inactive.

        Args:
            variables: List of arrays. Values of the variables of the model.
            cache: The cache of the slots.
            write_index: int scalar.
            prefix: The shared prefix.
            token: int32 array `(slots,)`. Last token of each slot, which is not
                in the cache yet.
            position: int32 array `(slots,)`. Position of that token behind the
                prefix.
            count: int32 array `(slots,)`. Number of tokens sampled so far.
            limit: int32 array `(slots,)`. Longest completion of each slot.
            active: bool array `(slots,)`. Whether a slot has a sample.
            key_data: uint32 array `(slots, 2)`. Random keys of the samples.
            choices: Further arguments of `next_token`; `()` for none.
            enough: int scalar.
            log_probs: Whether to return the log-probabilities of the new tokens.
            top: Whether to return the likeliest tokens at each place too.

        Returns:
            The cache, the next write index, and an int32 array `(slots,
            DECODE_CHUNK)` of new tokens, -1 where there is none. With `log_probs` a
            float32 array of the same shape, see `token_log_probs`. With `top` what
            `top_log_probs` returns, with the second axis of these arrays before its
            last one.
        """
        before = jnp.sum(active)
        length = cache[0][0].shape[2]
        start = prefix[1] if prefix else 0

        def unfinished(state):
            step, *_, active, _ = state
            left = jnp.sum(active)
            return (step < DECODE_CHUNK) & (left > 0) & (before - left < enough)

        def decode(state):
            step, cache, write_index, token, position, count, active, outputs = state
            there = token_positions(write_index, position, length)
            hidden_states, cache = extend_cache(
                self.model,
                token[:, None],
                cache,
                write_index,
                **_prefix_arguments(prefix),
                positions=start + position[:, None],
                cache_positions=jnp.where(
                    there >= 0, start + there, jnp.iinfo("int32").max
                ),
            )
            write_index = jnp.mod(write_index + 1, length)
            logits = head(self.model).logits(hidden_states[:, 0])
            new = self.next_token(logits, key_data, count, *choices)
            written = [jnp.where(active, new, -1)]
            if log_probs:
                written.append(token_log_probs(logits, new))
            if top:
                written += top_log_probs(logits)
            outputs = [
                x.at[:, step].set(column)
                for x, column in zip(outputs, written, strict=True)
            ]
            token = jnp.where(active, new, token)
            position, count = position + active, count + active
            ended = jnp.isin(new, jnp.array(self._end_token_ids))
            active = active & ~ended & (count < limit)
            state = step + 1, cache, write_index, token, position, count, active
            return *state, outputs

        shape = len(token), DECODE_CHUNK
        outputs = [jnp.full(shape, -1, "int32")]
        if log_probs:
            outputs.append(jnp.zeros(shape, "float32"))
        if top:
            shape = *shape, min(TOP_LOG_PROBS, self.model.backbone.vocabulary_size)
            outputs += [jnp.zeros(shape, "float32"), jnp.zeros(shape, "int32")]
        state = (0, cache, write_index, token, position, count, active, outputs)
        with with_variables(self.model, variables):
            _, cache, write_index, *_, outputs = jax.lax.while_loop(
                unfinished, decode, state
            )
        cache = self.ring.split(cache)
        # Every process reads the write index and the tokens.
        return cache, *self.layout.constrain((write_index, *outputs))


def _prefix_arguments(prefix):
    return dict(zip(("prefix_cache", "prefix_length"), prefix, strict=False))
