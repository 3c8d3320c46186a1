"""`generate()` and cached decoding of our own causal LMs."""

from keras import ops

from star_keras.models.forward import build_cache, extend_cache


class CachedGeneration:
    """Mixin of a `PackedCausalLM` whose blocks need an `attention_scope`."""

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
        """Compiled part of `generate()` for one batch.

        Args:
            inputs: dict of `token_ids`, an int tensor `(batch, length)`, and
                `padding_mask`, an int or bool tensor `(batch, length)`, 1 for the
                tokens of the prompt. Padding stands on the right.
            stop_token_ids: optional tuple of ints. Token ids that end a row.

        Returns:
            A dict of `token_ids`, an int tensor `(batch, length)` of prompts and
            completions, and `padding_mask`, a bool tensor `(batch, length)`, true
            for both. Tokens after the end of a row are those of `inputs`.
        """
        token_ids = inputs["token_ids"]
        padding_mask = ops.cast(inputs["padding_mask"], "bool")
        if stop_token_ids is not None:
            # Padding may be an end token, and the sampler would take it for the end
            # of the completion.
            no_stop = min(set(range(len(stop_token_ids) + 1)) - set(stop_token_ids))
            token_ids = ops.where(padding_mask, token_ids, no_stop)
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
        return {
            "token_ids": ops.where(after_stop, inputs["token_ids"], token_ids),
            "padding_mask": ~after_stop,
        }
