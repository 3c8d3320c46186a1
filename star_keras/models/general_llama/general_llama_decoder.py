"""One block of `GeneralLlamaBackbone`."""

import keras
from keras import ops
from keras_hub.src.models.llama.llama_layernorm import LlamaLayerNorm

from star_keras.models.general_llama.general_llama_attention import (
    GeneralLlamaAttention,
)


@keras.saving.register_keras_serializable(package="star_keras")
class GeneralLlamaDecoder(keras.layers.Layer):
    """A transformer block: attention, then a gated MLP, each behind an RMS norm.

    Args:
        intermediate_dim: int. Width of the MLP.
        attention: dict. Arguments of `GeneralLlamaAttention`.
        use_bias: bool. Whether the layers of the MLP have biases. Defaults to `False`.
        layer_norm_epsilon: float. Epsilon of the norms. Defaults to `1e-6`.

    Call arguments:
        hidden_states: float tensor `(batch, length, hidden_dim)`.
        padding_mask: optional int or bool tensor `(batch, length)`, see
            `GeneralLlamaAttention`.
        training: Not used: there is no dropout.

    Returns:
        float tensor of the shape of `hidden_states`.
    """

    def __init__(
        self,
        *,
        intermediate_dim,
        attention,
        use_bias=False,
        layer_norm_epsilon=1e-6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.attention = dict(attention)
        self.use_bias = use_bias
        self.layer_norm_epsilon = layer_norm_epsilon

    def build(self, hidden_states_shape):
        def norm(name):
            layer = LlamaLayerNorm(
                epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name
            )
            layer.build(hidden_states_shape)
            return layer

        def dense(name, inputs, outputs):
            layer = keras.layers.Dense(
                outputs,
                use_bias=self.use_bias,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((None, None, inputs))
            return layer

        hidden_dim, width = hidden_states_shape[-1], self.intermediate_dim
        self._self_attention_layernorm = norm("self_attention_layernorm")
        self._self_attention_layer = GeneralLlamaAttention(
            **self.attention,
            layer_norm_epsilon=self.layer_norm_epsilon,
            dtype=self.dtype_policy,
            name="self_attention",
        )
        self._self_attention_layer.build(hidden_states_shape)
        self._feedforward_layernorm = norm("feedforward_layernorm")
        self._feedforward_gate_dense = dense(
            "feedforward_gate_dense", hidden_dim, width
        )
        self._feedforward_intermediate_dense = dense(
            "feedforward_intermediate_dense", hidden_dim, width
        )
        self._feedforward_output_dense = dense(
            "feedforward_output_dense", width, hidden_dim
        )
        self.built = True

    def call(self, hidden_states, padding_mask=None, training=None):
        del training
        x = self._self_attention_layernorm(hidden_states)
        hidden_states += self._self_attention_layer(x, padding_mask=padding_mask)
        x = self._feedforward_layernorm(hidden_states)
        gate = ops.silu(ops.cast(self._feedforward_gate_dense(x), "float32"))
        x = self._feedforward_intermediate_dense(x) * ops.cast(gate, self.compute_dtype)
        return hidden_states + self._feedforward_output_dense(x)

    def compute_output_shape(self, hidden_states_shape):
        return hidden_states_shape

    def get_config(self):
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "attention": self.attention,
            "use_bias": self.use_bias,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
