"""Layers that compute on flat tokens without their axis of size 1.

Within an `attention_scope` hidden states are `(tokens, 1, hidden_dim)`. XLA for CPUs
does not drop the axis of size 1: the gradient of a kernel takes 3 times as long as on
two axes, that of the scale of a norm 20 times. (So do stock models: `(batch, length,
hidden_dim)` is no faster for kernels.)
"""

import math

import keras
from keras import ops
from keras_hub.src.models.gemma.rms_normalization import (
    RMSNormalization as GemmaNormalization,
)
from keras_hub.src.models.gemma3.gemma3_layers import (
    RMSNormalization as Gemma3Normalization,
)
from keras_hub.src.models.llama.llama_layernorm import LlamaLayerNorm
from keras_hub.src.models.mistral.mistral_layer_norm import MistralLayerNormalization
from keras_hub.src.models.mixtral.mixtral_layer_norm import (
    MixtralLayerNormalization,
)
from keras_hub.src.models.phi3.phi3_layernorm import Phi3LayerNorm
from keras_hub.src.models.qwen.qwen_layernorm import QwenLayerNorm
from keras_hub.src.models.qwen3.qwen3_layernorm import Qwen3LayerNorm

from star_keras.models.attention_scope import adapt

_NORMS = (
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    Gemma3Normalization,
    GemmaNormalization,
    LlamaLayerNorm,
    MistralLayerNormalization,
    MixtralLayerNormalization,
    Phi3LayerNorm,
    Qwen3LayerNorm,
    QwenLayerNorm,
)


def _flat(layer, stock_call, inputs, *args, **kwargs):
    if inputs.ndim < 3 or inputs.shape[1] != 1:
        return stock_call(layer, inputs, *args, **kwargs)
    outputs = stock_call(layer, ops.squeeze(inputs, 1), *args, **kwargs)
    return ops.expand_dims(outputs, 1)


def _flat_einsum(layer, stock_call, inputs, *args, **kwargs):
    """An `EinsumDense` whose contracted axes stand last, and first in its kernel."""
    tokens, kernel, outputs = layer.equation.replace("->", ",").split(",")
    contracted = tokens[2:]
    is_product = (
        inputs.ndim >= 3
        and inputs.shape[1] == 1
        and kernel.startswith(contracted)
        and outputs == tokens[:2] + kernel[len(contracted) :]
    )
    if not is_product or layer.quantization_mode:
        return stock_call(layer, inputs, *args, **kwargs)
    size = math.prod(inputs.shape[2:])
    matrix = ops.reshape(layer.kernel, (size, -1))
    x = ops.reshape(inputs, (-1, size)) @ matrix
    x = ops.reshape(x, (inputs.shape[0], *layer.kernel.shape[len(contracted) :]))
    if layer.bias is not None:
        x = x + layer.bias
    if layer.activation is not None:
        x = layer.activation(x)
    return ops.expand_dims(x, 1)


adapt(keras.layers.Dense, _flat)
adapt(keras.layers.EinsumDense, _flat_einsum)
for norm in _NORMS:
    adapt(norm, _flat)
