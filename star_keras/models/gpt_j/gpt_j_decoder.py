"""One block of GPT-J: attention and MLP side by side after one LayerNorm."""

import math

import jax
import keras
from keras import ops

from star_keras.models.attention_scope import is_decoding
from star_keras.models.gpt_j.gpt_j_attention import GPTJAttention
from star_keras.utils.errors import invalid


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJDecoder(keras.layers.Layer):
    """A transformer block `x + attention(norm(x)) + mlp(norm(x))`.

    Args:
        num_heads: int. Number of attention heads; must divide `hidden_dim`.
        intermediate_dim: int. Width of the MLP.
        rotary_dim: int. Number of leading dimensions of a head to rotate. Even.
        rotary_max_wavelength: int. Longest wavelength of the rotation. Defaults
            to `10000`.
        num_layers: int. Number of blocks in the whole network. The initial output
            kernels are scaled by `1 / sqrt(2 * num_layers)`. Defaults to `1`.
        dropout: float. Dropout rate for the outputs of attention and MLP. Defaults
            to `0.0`.
        layer_norm_epsilon: float. Epsilon of the LayerNorm. Defaults to `1e-5`.

    Call arguments:
        hidden_states: float tensor `(batch, length, hidden_dim)`.
        padding_mask: optional int or bool tensor `(batch, length)`, see
            `GPTJAttention`.
        training: optional bool. Whether the call is part of training.

    Returns:
        float tensor `(batch, length, hidden_dim)`.

    Raises:
        ValueError: when the layer is built, if `num_heads` does not divide
            `hidden_dim`, or `rotary_dim` is odd, below 2, or above the size of a
            head.
    """

    def __init__(
        self,
        num_heads,
        intermediate_dim,
        rotary_dim,
        rotary_max_wavelength=10000,
        num_layers=1,
        dropout=0.0,
        layer_norm_epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.intermediate_dim = intermediate_dim
        self.rotary_dim = rotary_dim
        self.rotary_max_wavelength = rotary_max_wavelength
        self.num_layers = num_layers
        self.dropout = dropout
        self.layer_norm_epsilon = layer_norm_epsilon

    def build(self, hidden_states_shape):
        hidden_dim = hidden_states_shape[-1]
        if hidden_dim % self.num_heads:
            raise invalid(
                "num_heads", f"a divisor of hidden_dim={hidden_dim}", self.num_heads
            )
        # Fan-in scaling: a fixed 0.02 leaves narrow networks stuck.
        output_scale = 1 / math.sqrt(2 * self.num_layers)
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=self.layer_norm_epsilon,
            dtype=self.dtype_policy,
            name="layer_norm",
        )
        self.layer_norm.build(hidden_states_shape)
        self.self_attention = GPTJAttention(
            num_heads=self.num_heads,
            head_dim=hidden_dim // self.num_heads,
            rotary_dim=self.rotary_dim,
            rotary_max_wavelength=self.rotary_max_wavelength,
            kernel_stddev=1 / math.sqrt(hidden_dim),
            output_stddev=output_scale / math.sqrt(hidden_dim),
            dtype=self.dtype_policy,
            name="self_attention",
        )
        self.self_attention.build(hidden_states_shape)
        self.feedforward_intermediate_dense = keras.layers.Dense(
            self.intermediate_dim,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=1 / math.sqrt(hidden_dim)
            ),
            dtype=self.dtype_policy,
            name="feedforward_intermediate_dense",
        )
        self.feedforward_intermediate_dense.build(hidden_states_shape)
        self.feedforward_output_dense = keras.layers.Dense(
            hidden_dim,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=output_scale / math.sqrt(self.intermediate_dim)
            ),
            dtype=self.dtype_policy,
            name="feedforward_output_dense",
        )
        self.feedforward_output_dense.build(
            (*hidden_states_shape[:-1], self.intermediate_dim)
        )
        self.attention_dropout = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="attention_dropout"
        )
        self.feedforward_dropout = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="feedforward_dropout"
        )
        self.built = True

    def call(self, hidden_states, padding_mask=None, training=None):
        x = self.layer_norm(hidden_states)
        attention = self.self_attention(x, padding_mask)
        attention = self.attention_dropout(attention, training=training)
        mlp = self.feedforward_dropout(self._mlp(x), training=training)
        return hidden_states + attention + mlp

    def _mlp(self, x):
        shape = ops.shape(x)
        x = ops.reshape(x, (-1, shape[-1]))  # see GPTJAttention
        x = self.feedforward_intermediate_dense(x)
        x = keras.activations.gelu(x, approximate=True)
        if is_decoding():
            # XLA for TPUs would fuse both products, and by its own estimate the
            # fusion takes 1.4 times as long.
            x = jax.lax.optimization_barrier(x)
        x = self.feedforward_output_dense(x)
        return ops.reshape(x, shape)

    def compute_output_shape(self, hidden_states_shape):
        return hidden_states_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "intermediate_dim": self.intermediate_dim,
                "rotary_dim": self.rotary_dim,
                "rotary_max_wavelength": self.rotary_max_wavelength,
                "num_layers": self.num_layers,
                "dropout": self.dropout,
                "layer_norm_epsilon": self.layer_norm_epsilon,
            }
        )
        return config
