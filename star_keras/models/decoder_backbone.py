"""A network of embedding, blocks and norm, whose arguments are its configuration."""

import keras
from keras_hub.models import Backbone


class DecoderBackbone(Backbone):
    """Base of our own backbones.

    A subclass first makes its layers: `token_embedding`, `transformer_layers`, called
    with hidden states and padding mask, and `layer_norm`.

    Args:
        arguments: dict. The arguments of the subclass, which become its attributes and
            its configuration.
        dtype: string or `keras.DTypePolicy`. Dtype of computations and weights.
        **kwargs: Arguments of `keras.Model`, e.g. `name`.
    """

    def __init__(self, arguments, dtype, **kwargs):
        # === Functional Model ===
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("token_ids", "padding_mask")
        }
        x = self._embed(inputs["token_ids"])
        for layer in self.transformer_layers:
            x = layer(x, inputs["padding_mask"])
        super().__init__(
            inputs=inputs, outputs=self.layer_norm(x), dtype=dtype, **kwargs
        )

        # === Config ===
        self._arguments = arguments
        for name, value in arguments.items():
            setattr(self, name, value)

    def _embed(self, token_ids):
        return self.token_embedding(token_ids)

    def get_config(self):
        return {**super().get_config(), **self._arguments}
