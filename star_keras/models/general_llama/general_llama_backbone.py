"""The network of a general Llama up to its last hidden states."""

import keras
from keras_hub.src.models.llama.llama_layernorm import LlamaLayerNorm

from star_keras.models.decoder_backbone import DecoderBackbone
from star_keras.models.general_llama.general_llama_decoder import GeneralLlamaDecoder
from star_keras.utils.errors import invalid

_ROPE = (
    "max_wavelength",
    "position_scaling_factor",
    "frequency_adjustment_factor",
    "low_freq_factor",
    "high_freq_factor",
    "pretraining_sequence_length",
)
_YARN = (
    "factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "truncate",
)


@keras.saving.register_keras_serializable(package="star_keras")
class GeneralLlamaBackbone(DecoderBackbone):
    """A Llama, Mistral, Qwen 2 or Qwen 3 that KerasHub's classes do not express.

    Args:
        vocabulary_size: int. Number of rows of the token embedding.
        num_layers: int. Number of transformer blocks.
        num_query_heads: int. Number of query heads.
        num_key_value_heads: int. Number of key-value heads; divides
            `num_query_heads`.
        hidden_dim: int. Width of the network.
        intermediate_dim: int. Width of the MLP.
        head_dim: optional int. Size of one head, even. Defaults to
            `hidden_dim // num_query_heads`.
        attention_bias: bool. Whether queries, keys and values have biases. Defaults to
            `False`.
        attention_output_bias: bool. Whether the outputs of attention have biases.
            Defaults to `False`.
        feedforward_bias: bool. Whether the MLPs have biases. Defaults to `False`.
        query_key_norm: bool. Whether queries and keys are normalized. Defaults to
            `False`.
        sliding_window: optional int. Number of tokens that a query of
            `window_layers` sees, itself included. Defaults to `None`.
        window_layers: sequence of int. Numbers of the blocks with the window. Defaults
            to none.
        layers_without_rope: sequence of int. Numbers of the blocks whose queries and
            keys are not rotated, as in SmolLM 3. Defaults to none.
        rope_max_wavelength: float. Longest wavelength of the rotation. Defaults to
            `10000`.
        rope_position_scaling_factor: float. Divisor of the positions. Defaults to
            `1.0`.
        rope_frequency_adjustment_factor: optional float. With the next three, Llama
            3's scaling of frequencies. Defaults to `None`.
        rope_low_freq_factor: optional float. Defaults to `None`.
        rope_high_freq_factor: optional float. Defaults to `None`.
        rope_pretraining_sequence_length: optional int. Defaults to `None`.
        rope_yarn: optional dict of `factor`, `original_max_position_embeddings`,
            `beta_fast`, `beta_slow` and `truncate`: the scaling of
            [YaRN](https://arxiv.org/abs/2309.00071), section 3, in place of the others.
            Defaults to `None`.
        layer_norm_epsilon: float. Epsilon of all norms. Defaults to `1e-6`.
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
        ValueError: if `num_key_value_heads` does not divide `num_query_heads`,
            `head_dim` is odd or below 2, `window_layers` or `layers_without_rope` has
            numbers that are no blocks, `window_layers` comes without a
            `sliding_window` of at least 1, or `rope_yarn` with another scaling or
            other keys.
    """

    def __init__(
        self,
        vocabulary_size,
        num_layers,
        num_query_heads,
        num_key_value_heads,
        hidden_dim,
        intermediate_dim,
        head_dim=None,
        attention_bias=False,
        attention_output_bias=False,
        feedforward_bias=False,
        query_key_norm=False,
        sliding_window=None,
        window_layers=(),
        layers_without_rope=(),
        rope_max_wavelength=10000,
        rope_position_scaling_factor=1.0,
        rope_frequency_adjustment_factor=None,
        rope_low_freq_factor=None,
        rope_high_freq_factor=None,
        rope_pretraining_sequence_length=None,
        rope_yarn=None,
        layer_norm_epsilon=1e-6,
        tie_word_embeddings=False,
        dtype=None,
        **kwargs,
    ):
        size = head_dim or hidden_dim // num_query_heads
        window_layers = tuple(sorted(window_layers))
        layers_without_rope = tuple(sorted(layers_without_rope))
        _check(
            num_layers,
            num_query_heads,
            num_key_value_heads,
            size,
            sliding_window,
            window_layers,
            layers_without_rope,
        )
        arguments = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "num_query_heads": num_query_heads,
            "num_key_value_heads": num_key_value_heads,
            "hidden_dim": hidden_dim,
            "intermediate_dim": intermediate_dim,
            "head_dim": head_dim,
            "attention_bias": attention_bias,
            "attention_output_bias": attention_output_bias,
            "feedforward_bias": feedforward_bias,
            "query_key_norm": query_key_norm,
            "sliding_window": sliding_window,
            "window_layers": window_layers,
            "layers_without_rope": layers_without_rope,
            "rope_max_wavelength": rope_max_wavelength,
            "rope_position_scaling_factor": rope_position_scaling_factor,
            "rope_frequency_adjustment_factor": rope_frequency_adjustment_factor,
            "rope_low_freq_factor": rope_low_freq_factor,
            "rope_high_freq_factor": rope_high_freq_factor,
            "rope_pretraining_sequence_length": rope_pretraining_sequence_length,
            "rope_yarn": rope_yarn,
            "layer_norm_epsilon": layer_norm_epsilon,
            "tie_word_embeddings": tie_word_embeddings,
        }
        attention = {
            "num_query_heads": num_query_heads,
            "num_key_value_heads": num_key_value_heads,
            "head_dim": size,
            "use_bias": attention_bias,
            "use_output_bias": attention_output_bias,
            "use_norm": query_key_norm,
        }
        rope = _rope(arguments)

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
            GeneralLlamaDecoder(
                intermediate_dim=intermediate_dim,
                attention={
                    **attention,
                    "rope": None if i in layers_without_rope else rope,
                    "sliding_window": sliding_window if i in window_layers else None,
                },
                use_bias=feedforward_bias,
                layer_norm_epsilon=layer_norm_epsilon,
                dtype=dtype,
                name=f"transformer_layer_{i}",
            )
            for i in range(num_layers)
        ]
        self.layer_norm = LlamaLayerNorm(
            epsilon=layer_norm_epsilon, dtype=dtype, name="sequence_output_layernorm"
        )
        super().__init__(arguments, dtype, **kwargs)


def _check(
    layers,
    query_heads,
    key_value_heads,
    head_dim,
    window,
    window_layers,
    layers_without_rope,
):
    if query_heads % key_value_heads:
        raise invalid(
            "num_key_value_heads",
            f"a divisor of num_query_heads={query_heads}",
            key_value_heads,
        )
    if head_dim < 2 or head_dim % 2:
        raise invalid("head_dim", "an even number, at least 2", head_dim)
    for name, numbers in (
        ("window_layers", window_layers),
        ("layers_without_rope", layers_without_rope),
    ):
        if not set(numbers) <= set(range(layers)):
            raise invalid(name, f"numbers from 0 to {layers - 1}", numbers)
    if window_layers and (window is None or window < 1):
        raise invalid("sliding_window", "at least 1 with `window_layers`", window)


def _rope(arguments):
    """The rotation by the arguments of the backbone."""
    rope = {name: arguments[f"rope_{name}"] for name in _ROPE}
    yarn = arguments["rope_yarn"]
    if yarn is None:
        return rope
    if rope["position_scaling_factor"] != 1 or rope["low_freq_factor"] is not None:
        raise invalid("rope_yarn", "`None` with another scaling", yarn)
    if set(yarn) != set(_YARN):
        raise invalid("rope_yarn", f"a dict of {list(_YARN)}", yarn)
    return {"max_wavelength": rope["max_wavelength"], "yarn": yarn}
