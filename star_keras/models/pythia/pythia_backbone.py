"""GPT-NeoX with an untied head and a choice of activation."""

import functools

import keras
from keras_hub.src.models.gpt_neo_x.gpt_neo_x_decoder import GPTNeoXDecoder

from star_keras.models.decoder_backbone import DecoderBackbone
from star_keras.utils.errors import invalid

_ACTIVATIONS = {
    "gelu": functools.partial(keras.activations.gelu, approximate=False),
    "gelu_approximate": functools.partial(keras.activations.gelu, approximate=True),
}


@keras.saving.register_keras_serializable(package="star_keras")
class PythiaBackbone(DecoderBackbone):
    """The network of GPT-NeoX and Pythia up to its last hidden states.

    Its blocks are KerasHub's. KerasHub's own backbone ties the head to the embedding
    and approximates GELU. Released models have an untied head; only GPT-NeoX-20B
    approximates GELU.

    Args:
        vocabulary_size: int. Number of rows of the token embedding.
        num_layers: int. Number of transformer blocks.
        num_heads: int. Number of attention heads; divides `hidden_dim`.
        hidden_dim: int. Width of the network.
        intermediate_dim: int. Width of the MLP.
        activation: `"gelu"` or `"gelu_approximate"`. Defaults to `"gelu"`.
        rotary_percentage: float. Share of a head that is rotated. Defaults to `0.25`.
        rotary_max_wavelength: float. Longest wavelength of the rotation. Defaults to
            `10000`.
        layer_norm_epsilon: float. Epsilon of the LayerNorms. Defaults to `1e-5`.
        tie_word_embeddings: bool. Whether the token embedding is also the head.
            Defaults to `False`.
        dtype: string or `keras.DTypePolicy`. Dtype of computations and weights.
        **kwargs: Arguments of `keras.Model`, e.g. `name`.

    Call arguments (a dictionary):
        token_ids: int tensor `(batch, length)`.
        padding_mask: int or bool tensor `(batch, length)`, 1 for real tokens.

    Returns:
        The last hidden states, a float tensor `(batch, length, hidden_dim)`.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_dim`, `activation` is
            another, or the rotated part of a head is odd or below 2.

    Reference:
        [GPT-NeoX-20B](https://arxiv.org/abs/2204.06745),
        [Pythia](https://arxiv.org/abs/2304.01373).
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        activation="gelu",
        rotary_percentage=0.25,
        rotary_max_wavelength=10000,
        layer_norm_epsilon=1e-5,
        tie_word_embeddings=False,
        dtype=None,
        **kwargs,
    ):
        if hidden_dim % num_heads:
            raise invalid(
                "num_heads", f"a divisor of hidden_dim={hidden_dim}", num_heads
            )
        if activation not in _ACTIVATIONS:
            raise invalid("activation", f"one of {sorted(_ACTIVATIONS)}", activation)
        rotary_dim = int(hidden_dim // num_heads * rotary_percentage)
        if rotary_dim < 2 or rotary_dim % 2:
            raise invalid(
                "rotary_percentage",
                f"a share of a head, {hidden_dim // num_heads}, that is even and at "
                "least 2",
                rotary_percentage,
            )
        arguments = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "hidden_dim": hidden_dim,
            "intermediate_dim": intermediate_dim,
            "activation": activation,
            "rotary_percentage": rotary_percentage,
            "rotary_max_wavelength": rotary_max_wavelength,
            "layer_norm_epsilon": layer_norm_epsilon,
            "tie_word_embeddings": tie_word_embeddings,
        }

        # === Layers ===
        self.token_embedding = keras.layers.ReversibleEmbedding(
            vocabulary_size,
            hidden_dim,
            tie_weights=tie_word_embeddings,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=dtype,
            name="token_embedding",
        )
        self.transformer_layers = [
            GPTNeoXDecoder(
                intermediate_dim=intermediate_dim,
                num_heads=num_heads,
                rotary_percentage=rotary_percentage,
                rotary_max_wavelength=rotary_max_wavelength,
                layer_norm_epsilon=layer_norm_epsilon,
                activation=_ACTIVATIONS[activation],
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
                dtype=dtype,
                name=f"transformer_layer_{i}",
            )
            for i in range(num_layers)
        ]
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="layer_norm"
        )
        super().__init__(arguments, dtype, **kwargs)
