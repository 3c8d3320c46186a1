"""Ring caches: the keys and values of the slots, and what moves in them."""

import jax
from jax import numpy as jnp

from star_keras.models.forward import build_cache
from star_keras.sampling.buckets import bucket
from star_keras.sampling.layout import MeshLayout
from star_keras.sampling.model_sampler import DECODE_CHUNK


class RingCache:
    """Compiled functions that make, fill and move the cache of the slots.

    A cache is what `star_keras.models.forward.build_cache` makes: a pair of arrays
    `(rows, heads, length, size)` for each layer, keys and values. The rows of this
    cache are the slots. It is a ring: all slots write their next token at the
    same index of its third axis, the write index, and go on at 0 after the last. A
    slot's tokens end just before the write index.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family.
        layout: `MeshLayout`. Slots are split over its batch axis, and heads like the
            weights of the model.

    Attributes:
        resize: See `_resize`.
        insert: See `_insert`. Donates the cache.
        join: See `_join`.
        compact: See `_compact`.

    Each attribute is a function of `jax.jit` with the arguments of the method.
    """

    def __init__(self, model, layout: MeshLayout):
        self.model = model
        self.layout = layout
        self.heads_axis = layout.heads_axis(model)
        self.resize = jax.jit(self._resize, static_argnums=(2, 3))
        self.insert = jax.jit(self._insert, donate_argnums=0)
        self.join = jax.jit(self._join, static_argnums=3)
        self.compact = jax.jit(self._compact)

    def split(self, cache):
        """Split the slots and heads of a traced cache over the mesh."""
        return self.layout.constrain(cache, self.layout.batch_axes, self.heads_axis)

    # === Compiled ===

    def _resize(self, cache, write_index, length, slots):
        """A longer or shorter cache with the newest tokens of another one.

        Args:
            cache: The other cache; `None` for an empty one.
            write_index: int scalar. Write index of the other cache.
            length: int. New length.
            slots: int. Number of slots of an empty cache.

        Returns:
            A cache of the new length; its write index is 0.
        """
        if cache is None:
            cache = build_cache(self.model, slots, length)
        more = max(length - cache[0][0].shape[2], 0)
        cache = jax.tree.map(
            # Newest last; then drop the oldest, or put zeros first.
            lambda x: jnp.pad(
                jnp.roll(x, -write_index, axis=2)[:, :, -length:],
                ((0, 0), (0, 0), (more, 0), (0, 0)),
            ),
            cache,
        )
        return self.split(cache)

    def _insert(self, cache, write_index, new, lengths, source):
        """Insert prefilled prompts into slots.

        Args:
            cache: The cache of the slots.
            write_index: int scalar.
            new: The cache that `prefill` returned.
            lengths: int32 array `(group_size,)`. Tokens of each prompt in `new`.
            source: int32 array `(slots,)`. The row of `new` for each slot, or
                -1 for a slot that keeps its own.

        Returns:
            The cache of the slots.
        """
        is_new = (source >= 0)[:, None, None, None]
        length = cache[0][0].shape[2]

        def insert(x, new):
            # The cache has room for every prompt, but not for all its padding.
            new = new[:, :, :length]
            more = length - new.shape[2]
            new = jnp.pad(new, ((0, 0), (0, 0), (0, more), (0, 0)))
            new = jax.vmap(lambda row, n: jnp.roll(row, write_index - n, axis=1))(
                new, lengths
            )
            return jnp.where(is_new, new[source], x)

        return self.split(jax.tree.map(insert, cache, new))

    def _join(self, prefix_cache, prefix_length, new, length):
        """Whole prompts from their common beginning and the rest of each.

        Args:
            prefix_cache: A cache of one row.
            prefix_length: int scalar. Its number of tokens.
            new: What `prefill` returned for the tokens behind them.
            length: int. Length of the result, which has room for all prompts.

        Returns:
            A cache with the rows of `new`, the first token at index 0.
        """

        def join(prefix, new):
            more = max(new.shape[2], length - prefix.shape[2])
            prefix = jnp.pad(prefix, ((0, 0), (0, 0), (0, more), (0, 0)))
            prefix = jnp.repeat(prefix, new.shape[0], axis=0)
            whole = jax.lax.dynamic_update_slice_in_dim(prefix, new, prefix_length, 2)
            # As long as without a prefix, so that `insert` has no more shapes.
            return whole[:, :, :length]

        joined = jax.tree.map(join, prefix_cache, new)
        return self.layout.constrain(joined, None, self.heads_axis)

    def _compact(self, cache, kept):
        """The cache of some of the slots.

        Args:
            cache: The cache of all slots.
            kept: int32 array. Numbers of the slots to keep.

        Returns:
            A cache with a row for each number; its write index is the same.
        """
        return self.split(jax.tree.map(lambda x: x[kept], cache))


def token_positions(write_index, position, length: int):
    """The position of the token at each place of a ring cache.

    Args:
        write_index: int scalar. The place of the next token of all rows.
        position: int array `(rows,)`. Position of that token in each row.
        length: Length of the cache.

    Returns:
        int array `(rows, length)`, negative where a row has no token.
    """
    # Number of tokens since each index was written.
    age = jnp.mod(write_index - jnp.arange(length, dtype="int32"), length)
    return position[:, None] - age


def prefix_size(length: int) -> int:
    """Length of the cache of a shared prefix of `length` tokens."""
    return bucket(length, 64)


def prompt_size(length: int) -> int:
    """Tokens to prefill for a prompt of `length` tokens; `decode` gets the last."""
    return bucket(length - 1, 32)


def cache_size(length: int) -> int:
    """Length of the cache of slots with at most `length` tokens."""
    return bucket(length + DECODE_CHUNK, 64, 4)
