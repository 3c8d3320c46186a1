"""What KerasHub 0.32 loses between a backbone's arguments and its layers.

Changed in place, so that a preset that was saved loads with the same numbers.
"""

import functools

import keras_hub
from keras import ops
from keras_hub.src.models.gemma.gemma_decoder_block import GemmaDecoderBlock
from keras_hub.src.models.llama.llama_rotary_embedding import LlamaRotaryEmbedding
from keras_hub.src.models.mixtral.mixtral_decoder import MixtralSparseMoeBlock
from keras_hub.src.models.qwen3.qwen3_decoder import Qwen3TransformerDecoder


def _with_tied_head(get_config):
    """A Llama's configuration does not say that its head is tied."""

    @functools.wraps(get_config)
    def corrected(self):
        tied = self.token_embedding.tie_weights
        return {**get_config(self), "tie_word_embeddings": tied}

    return corrected


def _with_epsilon(build):
    """The norms of Qwen 3's queries and keys take 1e-5, whatever the model's is."""

    @functools.wraps(build)
    def corrected(self, *args, **kwargs):
        build(self, *args, **kwargs)
        attention = self._self_attention_layer
        for norm in (
            attention._query_dense_layer_norm,
            attention._key_dense_layer_norm,
        ):
            norm.epsilon = self.layer_norm_epsilon

    return corrected


def _with_scale(build):
    """The blocks of Gemma 1 and 2 divide queries by the root of a head's size alone."""

    @functools.wraps(build)
    def corrected(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.attention.query_head_dim_normalize = self.query_head_dim_normalize

    return corrected


def _with_position_scaling(get_inverse_freq):
    """The rotation of Llamas drops `position_scaling_factor`."""

    @functools.wraps(get_inverse_freq)
    def corrected(self, rotary_dim):
        return get_inverse_freq(self, rotary_dim) / self.position_scaling_factor

    return corrected


def _with_router_in_float32(build):
    """Mixtral's router compares probabilities in the compute dtype.

    In bfloat16 experts whose logits differ get the same probability, and the first
    ones win. transformers takes the softmax in float32.
    """

    @functools.wraps(build)
    def corrected(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self._sparse_feedforward_gate_dense.activation = _in_float32

    return corrected


def _in_float32(x):
    return ops.cast(x, "float32")


keras_hub.models.LlamaBackbone.get_config = _with_tied_head(
    keras_hub.models.LlamaBackbone.get_config
)
Qwen3TransformerDecoder.build = _with_epsilon(Qwen3TransformerDecoder.build)
GemmaDecoderBlock.build = _with_scale(GemmaDecoderBlock.build)
LlamaRotaryEmbedding._get_inverse_freq = _with_position_scaling(
    LlamaRotaryEmbedding._get_inverse_freq
)
MixtralSparseMoeBlock.build = _with_router_in_float32(MixtralSparseMoeBlock.build)
