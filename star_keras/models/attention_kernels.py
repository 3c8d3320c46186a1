"""What computes the attention of packed rows: a kernel, blocks, or all scores."""

import functools

from star_keras.models.attention_in_blocks import (
    attend_rows_in_blocks,
    queries_at_once,
)
from star_keras.models.gpu_attention import gpu_attend, gpu_kernel_applies
from star_keras.models.splash_attention import splash_applies, splash_attend


def attention_of_rows(query, sliding_window=None, soft_cap=None):
    """Causal attention within segments without all scores at once.

    Args:
        query: float array `(B, H, G, L, D)`, see `star_keras.models.attention`.
        sliding_window: optional int. A query sees this many tokens, itself included.
        soft_cap: optional float, see `attend`.

    Returns:
        Callable `(query, key, value, segment_ids, *, scale) -> outputs`: a kernel if
        the device has one, or blocks for rows of more than 1,024 tokens. Or `None`:
        then all scores are computed at once.
    """
    length, head_dim = query.shape[3:]
    options = {"sliding_window": sliding_window, "soft_cap": soft_cap}
    if splash_applies(length):
        return functools.partial(splash_attend, **options)
    if gpu_kernel_applies(length, head_dim, query.dtype, **options):
        return gpu_attend
    if queries_at_once(length) < length:
        return functools.partial(attend_rows_in_blocks, **options)
    return None
