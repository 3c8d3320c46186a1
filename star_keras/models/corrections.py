"""What KerasHub 0.32 loses between a backbone's arguments and its layers.

Changed in place, so that a preset that was saved loads with the same numbers.
"""

import functools

import keras_hub
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


keras_hub.models.LlamaBackbone.get_config = _with_tied_head(
    keras_hub.models.LlamaBackbone.get_config
)
Qwen3TransformerDecoder.build = _with_epsilon(Qwen3TransformerDecoder.build)
