"""The attention function in force, which layers call in place of their own.

KerasHub's attention layers leave the attention itself to a function if one is in
force, see `attention_scope`. They project, normalize and rotate as their model wants
and hand over flat tokens: arrays `(tokens, heads * head_dim)`, with keys and values
of the key-value heads alone.
"""

import contextlib
import functools

from keras_hub.src.vllm.context import get_vllm_context, vllm_context_scope

from star_keras.models.attention_modes import CachedAttention


@contextlib.contextmanager
def attention_scope(attention, positions, caches=None):
    """A scope in which attention layers call a function in place of their own.

    Args:
        attention: `PackedAttention` or `CachedAttention`.
        positions: int array `(B, L)`. Positions of the tokens.
        caches: optional list with the cache of each layer, in the order of the calls.

    Yields:
        A callable without arguments; the caches after the calls.
    """
    with vllm_context_scope(attention, positions.reshape(-1), caches):
        yield lambda: get_vllm_context().updated_kv_caches


def positions_in_force():
    """Positions of the tokens, `(B * L,)`; `None` outside an `attention_scope`."""
    context = get_vllm_context()
    return context and context.positions


def rows_in_force():
    """`(B, L)`, the rows in which the tokens of an `attention_scope` stand."""
    return get_vllm_context().paged_attention_func.shape


def padding_mask_in_force():
    """The mask `(B, L)` of packed rows in an `attention_scope`, or `None`."""
    return getattr(get_vllm_context().paged_attention_func, "padding_mask", None)


def attend_in_force(query, key, value, scale):
    """Attention of the next layer by the function in force, heads first.

    Layers of ours call it in place of KerasHub's `vllm_paged_attention`: what comes
    heads first needs no copy.

    Args:
        query: float array `(B, num_heads, L, head_dim)`.
        key: float array `(B, num_heads, L, head_dim)`.
        value: float array `(B, num_heads, L, head_dim)`.
        scale: float. Factor of the scores.

    Returns:
        float array of the shape of `query`.
    """
    context = get_vllm_context()
    index, caches = context.layer_index, context.kv_caches
    outputs, cache = context.paged_attention_func.attend(
        caches and caches[index], query[:, :, None], key, value, scale=scale
    )
    if caches:
        context.layer_index = index + 1
        context.updated_kv_caches[index] = cache
    return outputs[:, :, 0]


def is_decoding():
    """Whether each row gets one token behind its cache."""
    context = get_vllm_context()
    attention = context and context.paged_attention_func
    return isinstance(attention, CachedAttention) and attention.shape[1] == 1


def adapt(layer_class, call):
    """Let the layers of a class compute otherwise within an `attention_scope`.

    Args:
        layer_class: A class of Keras or KerasHub. Changed in place.
        call: Callable `(layer, stock_call, *args, **kwargs) -> outputs`, where
            `stock_call(layer, *args, **kwargs)` is the method of the class.
    """
    stock_call = layer_class.call

    @functools.wraps(stock_call)
    def adapted(self, *args, **kwargs):
        if positions_in_force() is None:
            return stock_call(self, *args, **kwargs)
        return call(self, stock_call, *args, **kwargs)

    layer_class.call = adapted
