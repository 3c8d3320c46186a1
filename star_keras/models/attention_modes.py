"""What attention layers see: packed rows, or a cache of earlier tokens.

The classes here are functions that an `attention_scope` puts in force, for tokens that
stand in rows `(B, L)`.
"""

import jax
import jax.numpy as jnp

from star_keras.models.attention import (
    attend,
    attend_causally,
    attend_one_query,
    attend_to_prefix,
    merge_attention,
    write_to_cache,
)
from star_keras.models.attention_in_blocks import attend_in_blocks
from star_keras.models.attention_kernels import attention_of_rows
from star_keras.models.heads_in_rows import (
    join_heads,
    separate_heads,
    split_heads,
    widen_queries,
)


class RowAttention:
    """Attention of tokens in rows: base class.

    Args:
        shape: `(B, L)`.
    """

    def __init__(self, shape):
        self.shape = shape

    def __call__(
        self,
        cache,
        query,
        key,
        value,
        scale,
        head_dim,
        num_heads,
        num_kv_heads,
        *,
        sliding_window=None,
        soft_cap=None,
    ):
        """Attention of one layer.

        Args:
            cache: The cache of the layer, or `None`.
            query: float array `(B * L, num_heads * head_dim)`.
            key: float array `(B * L, num_kv_heads * head_dim)`.
            value: float array `(B * L, num_kv_heads * head_dim)`.
            scale: float. Factor of the scores.
            head_dim: int. Size of a head.
            num_heads: int. Number of query heads.
            num_kv_heads: int. Number of key-value heads; divides `num_heads`.
            sliding_window: optional int. A query sees this many tokens, itself
                included.
            soft_cap: optional float, see `attend`.

        Returns:
            The updated cache, and a float array of the shape of `query`.
        """

        def heads_first(x, *heads):  # to (B, *heads, L, head_dim)
            x = x.reshape(*self.shape, *heads, head_dim)
            return jnp.moveaxis(x, 1, -2)

        outputs, cache = self.attend(
            cache,
            heads_first(query, num_kv_heads, num_heads // num_kv_heads),
            heads_first(key, num_kv_heads),
            heads_first(value, num_kv_heads),
            sliding_window=sliding_window,
            scale=scale,
            soft_cap=soft_cap,
        )
        return cache, jnp.moveaxis(outputs, -2, 1).reshape(query.shape)

    def attend(self, cache, query, key, value, *, sliding_window=None, **options):
        """Attention of one layer, heads first.

        Args:
            cache: The cache of the layer, or `None`.
            query: float array `(B, num_kv_heads, group, L, head_dim)`.
            key: float array `(B, num_kv_heads, L, head_dim)`.
            value: float array `(B, num_kv_heads, L, head_dim)`.
            sliding_window: optional int, see `__call__`.
            **options: `scale` and `soft_cap`, see `attend`.

        Returns:
            A float array of the shape of `query`, and the updated cache.
        """
        raise NotImplementedError


class PackedAttention(RowAttention):
    """Causal attention within rows, for training.

    Args:
        shape: `(B, L)`, the shape of the rows.
        segment_ids: optional int array `(B, L)`. A token sees only tokens of its own
            segment.
        padding_mask: optional int or bool array `(B, L)`. No token sees the tokens
            where it is false.
    """

    def __init__(self, shape, segment_ids=None, padding_mask=None):
        super().__init__(shape)
        self.segment_ids = segment_ids
        self.padding_mask = padding_mask

    def attend(self, cache, query, key, value, *, sliding_window=None, **options):
        attend_rows = attention_of_rows(query, sliding_window, options.get("soft_cap"))
        if attend_rows is not None:
            ids = self._all_segment_ids()
            return attend_rows(query, key, value, ids, scale=options["scale"]), cache
        offsets = jnp.arange(self.shape[1], dtype="int32")
        distance = offsets[None, :, None] - offsets[None, None, :]
        mask = distance >= 0
        if sliding_window is not None and sliding_window < self.shape[1]:
            mask = mask & (distance < sliding_window)
        if self.segment_ids is not None:
            ids = self.segment_ids
            mask = mask & (ids[:, :, None] == ids[:, None, :])
        if self.padding_mask is not None:
            mask = mask & self.padding_mask.astype("bool")[:, None, :]
        parts = jax.lax.platform_dependent(
            query,
            key,
            value,
            mask,
            cpu=lambda *x: attend_causally(*x, **options),
            default=lambda *x: attend(*x, **options),
        )
        return parts.outputs(), cache

    def _all_segment_ids(self):
        """Segments that padding has its own of."""
        ids = self.segment_ids
        if ids is None:
            ids = jnp.zeros(self.shape, "int32")
        if self.padding_mask is not None:
            ids = jnp.where(self.padding_mask.astype("bool"), ids, -1)
        return ids.astype("int32")


class CachedAttention(RowAttention):
    """Attention to the tokens of a cache, and to a prefix shared by all rows.

    The cache of a layer is a tuple `(key, value)` of arrays, see
    `star_keras.models.forward.build_cache`, or `(key, value, prefix_key,
    prefix_value)` with a prefix, whose arrays have one row. The layer returns the
    updated `(key, value)`.

    Args:
        positions: int array `(B, L)`. Positions of the tokens.
        cache_positions: int array `(B or 1, length)`. Position of the token at each
            place of the updated cache. A token sees the tokens up to its own
            position.
        write_index: int scalar, or int array `(B,)`. Place in the cache of the first
            token of each row.
        prefix_length: optional int scalar. Number of tokens of the prefix.
    """

    def __init__(self, positions, cache_positions, write_index, prefix_length=None):
        super().__init__(positions.shape)
        self.positions = positions
        self.cache_positions = cache_positions
        self.write_index = write_index
        self.prefix_length = prefix_length

    def attend(self, cache, query, key, value, *, sliding_window=None, **options):
        count = cache[0].shape[-1] // key.shape[-1]  # heads side by side
        updated = tuple(
            write_to_cache(cache[i], join_heads(x, count), self.write_index)
            for i, x in enumerate((key, value))
        )
        is_decoding = self.shape[1] == 1
        seen = *updated, *cache[2:]
        if is_decoding:
            query = widen_queries(query, count)
        else:
            seen = [separate_heads(x, count) for x in seen]
        key, value, *prefix = seen

        def attend_from(query, positions):
            mask = self._mask(positions, self.cache_positions, sliding_window)
            arguments = query, key, value, mask
            if is_decoding:
                parts = jax.lax.platform_dependent(
                    *arguments,
                    cpu=lambda *x: attend(*x, few_queries=True, **options),
                    tpu=lambda *x: attend_one_query(*x, **options),
                    default=lambda *x: attend(*x, **options),
                )
            else:
                parts = attend(*arguments, **options)
            if prefix:
                size = prefix[0].shape[2]
                places = jnp.arange(size, dtype="int32")[None]
                mask = (places < self.prefix_length)[:, None, :]
                if sliding_window is not None and sliding_window < size + key.shape[2]:
                    queries = positions[:, :, None]
                    mask = mask & (places[:, None, :] > queries - sliding_window)
                prefix_parts = attend_to_prefix(query, *prefix, mask, **options)
                parts = merge_attention(parts, prefix_parts)
            return parts

        outputs = attend_in_blocks(attend_from, query, self.positions)
        return (split_heads(outputs, count) if is_decoding else outputs), updated

    def _mask(self, positions, key_positions, sliding_window):
        """`(B, L, K)`, from positions `(B, L)` and those of the keys, `(B or 1, K)`."""
        queries, keys = positions[:, :, None], key_positions[:, None, :]
        mask = keys <= queries
        # No two tokens of a cache are farther apart than its length.
        if sliding_window is not None and sliding_window < keys.shape[2]:
            mask = mask & (keys > queries - sliding_window)
        return mask
