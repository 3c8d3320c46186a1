"""A causal LM's forward pass: packed rows to hidden states, tokens into a cache."""

import jax
import jax.numpy as jnp
import keras
from keras import ops

from star_keras.models.attention_modes import (
    CachedAttention,
    PackedAttention,
    RowAttention,
)
from star_keras.models.attention_scope import attention_scope
from star_keras.models.families import known_family
from star_keras.models.heads_in_rows import heads_in_a_row


def hidden_states(model, inputs, *, training=False, gradient_checkpointing=False):
    """The last hidden states of rows that may pack several sequences.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family.
        inputs: dict of `token_ids`, an int array `(batch, length)`; and optionally
            `padding_mask`, an int or bool array `(batch, length)`, 1 for real tokens;
            `segment_ids`, an int array `(batch, length)`, the number of the sequence
            of each token; and `positions`, an int array `(batch, length)`, which
            counts from 0 in each sequence. Defaults to one sequence a row.
        training: bool. Whether dropout is on: that of embeddings and of what blocks
            add. Within attention there is none. Defaults to `False`.
        gradient_checkpointing: bool. Whether each block's activations are
            recomputed in the backward pass. Defaults to `False`.

    Returns:
        float array `(batch, length, hidden_dim)`.

    Raises:
        ValueError: if the family of the model is not known, or the rows are longer
            than `max_sequence_length` of its backbone and have no `positions`.
    """
    family = known_family(model)
    token_ids = ops.convert_to_tensor(inputs["token_ids"], dtype="int32")
    batch, length = token_ids.shape
    positions = inputs.get("positions")
    if positions is None:
        limit = getattr(model.backbone, "max_sequence_length", None)
        if limit is not None and length > limit:
            raise ValueError(
                f"Rows of {length} tokens are longer than the sequences that the model "
                f"is made for: max_sequence_length={limit}. Use shorter rows, or pass "
                "`positions`."
            )
        offsets = jnp.arange(length, dtype="int32")
        positions = jnp.broadcast_to(offsets, (batch, length))
    attention = PackedAttention(
        (batch, length), inputs.get("segment_ids"), inputs.get("padding_mask")
    )
    with attention_scope(attention, ops.cast(positions, "int32")):
        x = family.embed(model.backbone, token_ids.reshape(-1, 1), training=training)
        for block in model.backbone.transformer_layers:
            if gradient_checkpointing:
                x = _recomputed(block, x, training)
            else:
                x = block(x, training=training)
        x = getattr(model.backbone, family.norm)(x)
    return x.reshape(batch, length, -1)


def head(model):
    """The `Head` of a causal LM of a known family."""
    return known_family(model).head(model)


def cache_shapes(model):
    """Shapes of what each layer stores of a token.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family.

    Returns:
        A list with a pair `(num_kv_heads, head_dim)` for each layer.
    """
    shapes = []

    class Recorder(RowAttention):
        def attend(self, cache, query, key, value, **options):
            shapes.append((key.shape[1], key.shape[3]))
            return query, cache

    def forward():
        family = known_family(model)
        token = jnp.zeros((1, 1), "int32")
        with keras.StatelessScope(), attention_scope(Recorder((1, 1)), token):
            x = family.embed(model.backbone, token)
            for block in model.backbone.transformer_layers:
                x = block(x)
        return x

    jax.eval_shape(forward)
    return shapes


def build_cache(model, batch_size, length):
    """An empty key-value cache.

    Heads come before places. In the other order a decoding step is 10 times slower
    on CPU. On a TPU small heads stand side by side, see
    `star_keras.models.heads_in_rows`. Their number depends on the
    `keras.distribution` in force, so use a cache under the one it was built under.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family.
        batch_size: int. Number of rows.
        length: int. Number of tokens that a row can hold.

    Returns:
        A tuple with a pair `(key, value)` for each layer: zeros `(batch_size,
        num_kv_heads / C, length, C * head_dim)` in the compute dtype, for C heads
        side by side.
    """
    dtype = model.compute_dtype

    def zeros(heads, head_dim):
        count = heads_in_a_row(heads, head_dim)
        shape = batch_size, heads // count, length, count * head_dim
        return jnp.zeros(shape, dtype)

    return tuple((zeros(*shape), zeros(*shape)) for shape in cache_shapes(model))


def extend_cache(
    model,
    token_ids,
    cache,
    write_index,
    *,
    positions=None,
    cache_positions=None,
    prefix_cache=None,
    prefix_length=None,
):
    """One forward pass that reads and extends a key-value cache.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family.
        token_ids: int array `(batch, length)`.
        cache: See `build_cache`.
        write_index: int scalar, or int array `(batch,)` with an index for each row.
            Place in the cache of the first of the tokens.
        positions: optional int array `(batch, length)`. Positions of the tokens, the
            prefix included. Defaults to `prefix_length + write_index`, plus 0, 1, 2
            and so on.
        cache_positions: optional int array `(batch or 1, cache_length)`. The position
            of the token at each place of the cache, for a cache whose places are not
            positions. Requires `positions`.
        prefix_cache: optional cache of batch size 1 with a prefix shared by all rows.
        prefix_length: int scalar. Number of tokens in the prefix. Later places of
            `prefix_cache` are padding. Required with `prefix_cache`.

    Returns:
        `(hidden_states, cache)`: a float array `(batch, length, hidden_dim)`, and the
        updated cache.

    Raises:
        ValueError: if the family of the model is not known.
    """
    family = known_family(model)
    batch, length = token_ids.shape
    start = 0 if prefix_length is None else prefix_length
    write_index = jnp.asarray(write_index, "int32")
    if positions is None:
        first = write_index.reshape(-1, 1) + start
        positions = first + jnp.arange(length, dtype="int32")
        positions = jnp.broadcast_to(positions, (batch, length))
        # Learned positions end somewhere; only padding can stand behind.
        limit = getattr(model.backbone, "max_sequence_length", None)
        if limit is not None:
            positions = jnp.minimum(positions, limit - 1)
    if cache_positions is None:
        places = cache[0][0].shape[2]
        cache_positions = start + jnp.arange(places, dtype="int32")[None]
    attention = CachedAttention(positions, cache_positions, write_index, prefix_length)
    caches = [
        own + shared
        for own, shared in zip(cache, prefix_cache or [()] * len(cache), strict=True)
    ]
    with attention_scope(attention, positions, caches) as updated:
        x = family.embed(model.backbone, token_ids.reshape(-1, 1))
        for block in model.backbone.transformer_layers:
            x = block(x)
        x = getattr(model.backbone, family.norm)(x)
        cache = tuple(updated())
    return x.reshape(batch, length, -1), cache


def _recomputed(block, x, training):
    """`block(x)`, whose activations are computed again in the backward pass.

    Changes of the block's state, such as the seed of its dropout, and its added losses
    are results of the recomputed function; otherwise they would count twice.
    """
    variables = block.variables

    @jax.checkpoint
    def call(x, values):
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            y = block(x, training=training)
        states = [scope.get_current_value(v) for v in variables if not v.trainable]
        return y, states, scope.losses

    x, states, losses = call(x, [v.value for v in variables])
    for variable, state in zip(
        (v for v in variables if not v.trainable), states, strict=True
    ):
        variable.assign(state)
    block._clear_losses()  # those of the function itself
    if losses:
        block.add_loss(losses)
    return x
