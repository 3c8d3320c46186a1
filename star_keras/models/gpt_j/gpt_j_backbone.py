"""The GPT-J network up to its last hidden states."""

import keras

from star_keras.models.decoder_backbone import DecoderBackbone
from star_keras.models.gpt_j.gpt_j_decoder import GPTJDecoder
from star_keras.utils.errors import invalid


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJBackbone(DecoderBackbone):
    """GPT-J, a causal transformer with rotary positions and parallel blocks.

    Attention and MLP of a block run in parallel: both read the same LayerNorm,
    and both outputs are added to the block's input. The constructor makes a
    randomly initialized network of any size. `GPTJBackbone.gpt_j_6b()` has the
    sizes of the released model.

    Args:
        vocabulary_size: int. Number of rows of the token embedding.
        num_layers: int. Number of transformer blocks.
        num_heads: int. Number of attention heads; must divide `hidden_dim`.
        hidden_dim: int. Width of the network.
        intermediate_dim: int. Width of the MLP.
        rotary_dim: int. Number of leading dimensions of a head to rotate. Even.
        max_sequence_length: int. Longest intended sequence. No weight depends on
            it. Defaults to `2048`.
        rotary_max_wavelength: int. Longest wavelength of the rotation. Defaults
            to `10000`.
        dropout: float. Dropout rate for embeddings and block outputs. Defaults to
            `0.0`.
        layer_norm_epsilon: float. Epsilon of the LayerNorms. Defaults to `1e-5`.
        dtype: string or `keras.DTypePolicy`. Dtype of computations and weights.
            Softmax, rotation and LayerNorm are always computed in float32.
        **kwargs: Arguments of `keras.Model`, e.g. `name`.

    Call arguments (a dictionary):
        token_ids: int tensor `(batch, length)`.
        padding_mask: int or bool tensor `(batch, length)`, 1 for real tokens.

    Returns:
        The last hidden states, a float tensor `(batch, length, hidden_dim)`.

    Raises:
        ValueError: if `num_heads` does not divide `hidden_dim`, or `rotary_dim` is
            odd, below 2, or above the size of a head.

    Example:
    ```python
    backbone = GPTJBackbone(
        vocabulary_size=320, num_layers=2, num_heads=4, hidden_dim=64,
        intermediate_dim=256, rotary_dim=8,
    )
    backbone({"token_ids": np.ones((1, 12)), "padding_mask": np.ones((1, 12))})
    ```

    Reference:
        [mesh-transformer-jax](https://github.com/kingoflolz/mesh-transformer-jax)
        (Wang and Komatsuzaki, 2021), where GPT-J-6B was trained.
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_heads,
        hidden_dim,
        intermediate_dim,
        rotary_dim,
        max_sequence_length=2048,
        rotary_max_wavelength=10000,
        dropout=0.0,
        layer_norm_epsilon=1e-5,
        dtype=None,
        **kwargs,
    ):
        if hidden_dim % num_heads:
            raise invalid(
                "num_heads", f"a divisor of hidden_dim={hidden_dim}", num_heads
            )
        arguments = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "hidden_dim": hidden_dim,
            "intermediate_dim": intermediate_dim,
            "rotary_dim": rotary_dim,
            "max_sequence_length": max_sequence_length,
            "rotary_max_wavelength": rotary_max_wavelength,
            "dropout": dropout,
            "layer_norm_epsilon": layer_norm_epsilon,
        }

        # === Layers ===
        self.token_embedding = keras.layers.Embedding(
            vocabulary_size,
            hidden_dim,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.5),
            dtype=dtype,
            name="token_embedding",
        )
        self.embeddings_dropout = keras.layers.Dropout(
            dropout, dtype=dtype, name="embeddings_dropout"
        )
        self.transformer_layers = [
            GPTJDecoder(
                num_heads=num_heads,
                intermediate_dim=intermediate_dim,
                rotary_dim=rotary_dim,
                rotary_max_wavelength=rotary_max_wavelength,
                num_layers=num_layers,
                dropout=dropout,
                layer_norm_epsilon=layer_norm_epsilon,
                dtype=dtype,
                name=f"transformer_layer_{i}",
            )
            for i in range(num_layers)
        ]
        self.layer_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=dtype, name="layer_norm"
        )
        super().__init__(arguments, dtype, **kwargs)

    @classmethod
    def gpt_j_6b(cls, **kwargs):
        """A backbone with the sizes of GPT-J-6B and random weights.

        `GPTJCausalLM` with this backbone has 6,050,882,784 parameters.

        Args:
            **kwargs: Arguments of `GPTJBackbone`; they override single sizes, e.g.
                `num_layers=2`.

        Returns:
            A `GPTJBackbone`.

        Raises:
            ValueError: as the class.
        """
        sizes = {
            "vocabulary_size": 50400,
            "num_layers": 28,
            "num_heads": 16,
            "hidden_dim": 4096,
            "intermediate_dim": 16384,
            "rotary_dim": 64,
            "max_sequence_length": 2048,
        }
        return cls(**{**sizes, **kwargs})

    def _embed(self, token_ids):
        return self.embeddings_dropout(self.token_embedding(token_ids))
