"""`generate()` and cached decoding of our own causal LMs."""

from keras import ops

from star_keras.models.forward import build_cache, extend_cache


class CachedGeneration:
    """Mixin behind `PackedCausalLM` for blocks that need an `attention_scope`."""

    def call_with_cache(self, token_ids, cache, cache_update_index):
        """One forward pass that reads and extends a key-value cache.

        Args:
            token_ids: int tensor `(batch, length)`.
            cache: tuple with one `(key, value)` pair per layer, see `build_cache`.
            cache_update_index: int scalar. Place in the cache of the first of the
                tokens. The cache must hold all earlier tokens.

        Returns:
            `(logits, hidden_states, cache)`: float tensors
            `(batch, length, vocabulary_size)` and `(batch, length, hidden_dim)`,
            and the updated cache.
        """
        hidden_states, cache = extend_cache(self, token_ids, cache, cache_update_index)
        return self.head().logits(hidden_states), hidden_states, cache

    def _build_cache(self, token_ids):
        # Name and result as in KerasHub, whose own code calls it.
        cache = build_cache(self, *ops.shape(token_ids))
        _, hidden_states, cache = self.call_with_cache(token_ids, cache, 0)
        return hidden_states, cache

    def generate_step(self, inputs, stop_token_ids=None):
        """Compiled part of `generate()`, see `PackedCausalLM.generate_step`."""
        token_ids = inputs["token_ids"]
        padding_mask = ops.cast(inputs["padding_mask"], "bool")
        hidden_states, cache = self._build_cache(token_ids)
        row_lengths = ops.sum(ops.cast(padding_mask, "int32"), axis=-1)

        def next(prompt, cache, index):
            batch_size = ops.shape(prompt)[0]
            last = ops.slice(prompt, [0, index - 1], [batch_size, 1])
            logits, hidden_states, cache = self.call_with_cache(last, cache, index - 1)
            return (
                ops.squeeze(logits, axis=1),
                ops.squeeze(hidden_states, axis=1),
                cache,
            )

        token_ids = self.sampler(
            next=next,
            prompt=token_ids,
            cache=cache,
            index=ops.min(row_lengths),
            mask=padding_mask,
            stop_token_ids=stop_token_ids,
            hidden_states=hidden_states,
            model=self,
        )
        if stop_token_ids is None:
            return {
                "token_ids": token_ids,
                "padding_mask": ops.ones_like(token_ids, dtype="bool"),
            }
        # A row ends at its first stop token that is not part of the prompt.
        stops = ops.zeros_like(padding_mask)
        for stop_token_id in stop_token_ids:
            stops = stops | (token_ids == stop_token_id)
        stops = ops.cast(stops & ~padding_mask, "int32")
        after_stop = ops.cumsum(stops, axis=-1) - stops > 0
        return {"token_ids": token_ids, "padding_mask": ~after_stop}
