"""Self-attention of `GeneralLlamaBackbone`."""

import math

import jax.numpy as jnp
import keras
from keras import ops
from keras_hub.layers import RotaryEmbedding
from keras_hub.src.models.llama.llama_layernorm import LlamaLayerNorm
from keras_hub.src.models.llama.llama_rotary_embedding import LlamaRotaryEmbedding
from keras_hub.src.vllm.attention import vllm_paged_attention

from star_keras.models.attention_modes import PackedAttention
from star_keras.models.attention_scope import (
    attention_scope,
    positions_in_force,
)


@keras.saving.register_keras_serializable(package="star_keras")
class GeneralLlamaAttention(keras.layers.Layer):
    """Grouped attention with rotary positions and optional biases, norms and window.

    Args:
        num_query_heads: int. Number of query heads.
        num_key_value_heads: int. Number of key-value heads.
        head_dim: int. Size of one head, even.
        use_bias: bool. Whether queries, keys and values have biases. Defaults to
            `False`.
        use_output_bias: bool. Whether the output has a bias. Defaults to `False`.
        use_norm: bool. Whether queries and keys of a head are normalized, as in
            Qwen 3. Defaults to `False`.
        sliding_window: optional int. A query sees this many tokens, itself included.
            Defaults to `None`, all tokens.
        rope: optional dict. Arguments of KerasHub's `LlamaRotaryEmbedding`; or its
            `max_wavelength`, and `yarn`, see `GeneralLlamaBackbone`. Defaults to
            `None`, no rotation.
        layer_norm_epsilon: float. Epsilon of the norms. Defaults to `1e-6`.

    Call arguments:
        hidden_states: float tensor `(batch, length, hidden_dim)`.
        padding_mask: optional int or bool tensor `(batch, length)`, 1 for real
            tokens. Not used within an `attention_scope`.

    Returns:
        float tensor of the shape of `hidden_states`.
    """

    def __init__(
        self,
        *,
        num_query_heads,
        num_key_value_heads,
        head_dim,
        use_bias=False,
        use_output_bias=False,
        use_norm=False,
        sliding_window=None,
        rope=None,
        layer_norm_epsilon=1e-6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_query_heads = num_query_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.use_bias = use_bias
        self.use_output_bias = use_output_bias
        self.use_norm = use_norm
        self.sliding_window = sliding_window
        self.rope = rope
        self.layer_norm_epsilon = layer_norm_epsilon

    # (Attributes have KerasHub's names: one table of weights reads all Llamas.)

    def build(self, hidden_states_shape):
        hidden_dim = hidden_states_shape[-1]

        def dense(name, equation, shape, bias_axes, input_shape):
            layer = keras.layers.EinsumDense(
                equation,
                output_shape=(None, *shape),
                bias_axes=bias_axes,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build(input_shape)
            return layer

        def projection(name, heads):
            shape, bias = (heads, self.head_dim), "uh" if self.use_bias else None
            return dense(name, "bqm,muh->bquh", shape, bias, hidden_states_shape)

        def norm(name):
            layer = LlamaLayerNorm(
                epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
            )
            layer.build((None, None, None, self.head_dim))
            return layer

        self._query_dense = projection("query", self.num_query_heads)
        self._key_dense = projection("key", self.num_key_value_heads)
        self._value_dense = projection("value", self.num_key_value_heads)
        self._output_dense = dense(
            "attention_output",
            "bquh,uhm->bqm",
            (hidden_dim,),
            "m" if self.use_output_bias else None,
            (None, None, self.num_query_heads, self.head_dim),
        )
        if self.use_norm:
            self._query_dense_layer_norm = norm("query_layernorm")
            self._key_dense_layer_norm = norm("key_layernorm")
        if self.rope is not None:
            self.rotary_embedding_layer = self._rotary_embedding()
        self.built = True

    def _rotary_embedding(self):
        rope, yarn = dict(self.rope), self.rope.get("yarn")
        if yarn is None:
            return LlamaRotaryEmbedding(**rope, dtype=self.dtype_policy)
        return RotaryEmbedding(
            max_wavelength=rope["max_wavelength"],
            rope_type="yarn",
            scaling_factor=yarn["factor"],
            **{name: value for name, value in yarn.items() if name != "factor"},
            dtype=self.dtype_policy,
        )

    def call(self, hidden_states, padding_mask=None):
        if positions_in_force() is None:
            rows = ops.shape(hidden_states)[:2]
            positions = jnp.broadcast_to(jnp.arange(rows[1], dtype="int32"), rows)
            attention = PackedAttention(rows, padding_mask=padding_mask)
            tokens = ops.reshape(hidden_states, (-1, 1, hidden_states.shape[-1]))
            with attention_scope(attention, positions):
                return ops.reshape(self.call(tokens), ops.shape(hidden_states))
        query, key = self._query_dense(hidden_states), self._key_dense(hidden_states)
        if self.use_norm:
            query = self._query_dense_layer_norm(query)
            key = self._key_dense_layer_norm(key)
        if self.rope is not None:
            positions = ops.reshape(positions_in_force(), (-1, 1))
            query = self.rotary_embedding_layer(query, positions=positions)
            key = self.rotary_embedding_layer(key, positions=positions)
        outputs = vllm_paged_attention(
            query,
            key,
            self._value_dense(hidden_states),
            1 / math.sqrt(self.head_dim),
            sliding_window=self.sliding_window,
        )
        return self._output_dense(outputs)

    def compute_output_spec(self, hidden_states, padding_mask=None):
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "num_query_heads": self.num_query_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "use_bias": self.use_bias,
            "use_output_bias": self.use_output_bias,
            "use_norm": self.use_norm,
            "sliding_window": self.sliding_window,
            "rope": self.rope,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
