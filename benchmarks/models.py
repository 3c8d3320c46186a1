"""Measured models: flags that choose one, sizes of each family, the optimizer.

Functions import Keras themselves, since `load_libraries` has to come before.
"""

import dataclasses

from absl import app, flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a causal LM, see `GPTJSize` and `LlamaSize`."""

    num_layers: int
    hidden_dim: int
    num_heads: int
    vocabulary_size: int

    def forward_flops(self, tokens: int, attended: float, head_tokens: int) -> float:
        """FLOPs of the matrix products of a forward pass.

        Args:
            tokens: Tokens that go through the blocks.
            attended: Number of pairs of a query and a key.
            head_tokens: Tokens that go through the head.
        """
        width = self.hidden_dim
        weights, attention = 2 * self.block_weights * tokens, 4 * width * attended
        head = 2 * width * self.vocabulary_size * head_tokens
        return self.num_layers * (weights + attention) + head


class GPTJSize(Size):
    """Size of our GPT-J. The MLP is four times as wide as the blocks."""

    @property
    def block_weights(self) -> int:
        return 12 * self.hidden_dim**2

    @property
    def rotary_dim(self) -> int:
        return self.hidden_dim // self.num_heads // 2

    def make_model(self, preprocessor=None):
        """A `GPTJCausalLM` with random weights, not compiled."""
        from star_keras.models import GPTJBackbone, GPTJCausalLM

        backbone = GPTJBackbone(
            vocabulary_size=self.vocabulary_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            hidden_dim=self.hidden_dim,
            intermediate_dim=4 * self.hidden_dim,
            rotary_dim=self.rotary_dim,
        )
        return GPTJCausalLM(backbone, preprocessor)

    def make_preprocessor(self, tokenizer, sequence_length: int):
        from star_keras.models import GPTJCausalLMPreprocessor

        return GPTJCausalLMPreprocessor(tokenizer, sequence_length=sequence_length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaSize(Size):
    """Size of KerasHub's Llama."""

    num_key_value_heads: int
    intermediate_dim: int
    tied: bool = False

    @property
    def block_weights(self) -> int:
        grouped = self.num_key_value_heads / self.num_heads
        attention = int((2 + 2 * grouped) * self.hidden_dim**2)
        return attention + 3 * self.hidden_dim * self.intermediate_dim

    def make_model(self, preprocessor=None):
        """A stock `LlamaCausalLM` with random weights, not compiled."""
        from keras_hub.models import LlamaBackbone, LlamaCausalLM

        backbone = LlamaBackbone(
            vocabulary_size=self.vocabulary_size,
            num_layers=self.num_layers,
            num_query_heads=self.num_heads,
            num_key_value_heads=self.num_key_value_heads,
            hidden_dim=self.hidden_dim,
            intermediate_dim=self.intermediate_dim,
            tie_word_embeddings=self.tied,
        )
        return LlamaCausalLM(
            backbone=backbone, preprocessor=preprocessor, compile=False
        )

    def make_preprocessor(self, tokenizer, sequence_length: int):
        from keras_hub.models import LlamaCausalLMPreprocessor

        return LlamaCausalLMPreprocessor(
            tokenizer, sequence_length=sequence_length, add_start_token=False
        )


_TINY = {"num_layers": 1, "hidden_dim": 64, "num_heads": 2, "vocabulary_size": 512}
_SMALL = {"num_layers": 4, "hidden_dim": 256, "num_heads": 4, "vocabulary_size": 512}
SIZES = {
    "gpt_j": {
        "tiny": GPTJSize(**_TINY),
        "small": GPTJSize(**_SMALL),
        "base": GPTJSize(
            num_layers=12, hidden_dim=768, num_heads=12, vocabulary_size=50_400
        ),
        # The preset "arithmetic_base".
        "arithmetic": GPTJSize(
            num_layers=3, hidden_dim=128, num_heads=4, vocabulary_size=289
        ),
    },
    "llama": {
        "tiny": LlamaSize(**_TINY, num_key_value_heads=1, intermediate_dim=176),
        "small": LlamaSize(**_SMALL, num_key_value_heads=2, intermediate_dim=704),
        # The small one with the vocabulary of Qwen 2.5.
        "large_vocabulary": LlamaSize(
            **{**_SMALL, "vocabulary_size": 151_936},
            num_key_value_heads=2,
            intermediate_dim=704,
            tied=True,
        ),
        # Qwen 2.5 0.5B, but for the biases of its queries, keys and values.
        "qwen2.5_0.5b": LlamaSize(
            num_layers=24,
            hidden_dim=896,
            num_heads=14,
            num_key_value_heads=2,
            intermediate_dim=4864,
            vocabulary_size=151_936,
            tied=True,
        ),
        # SmolLM2 135M.
        "smollm2": LlamaSize(
            num_layers=30,
            hidden_dim=576,
            num_heads=9,
            num_key_value_heads=3,
            intermediate_dim=1536,
            vocabulary_size=49_152,
            tied=True,
        ),
    },
}

FLAGS = flags.FLAGS
flags.DEFINE_enum("family", "gpt_j", list(SIZES), "Family of the model.")
flags.DEFINE_enum(
    "size",
    "small",
    list(dict.fromkeys(size for sizes in SIZES.values() for size in sizes)),
    "Size of the model. Each family has some of them.",
)


def chosen_size() -> Size:
    """The size that the flags choose.

    Raises:
        app.UsageError: if the family does not have it.
    """
    sizes = SIZES[FLAGS.family]
    if FLAGS.size not in sizes:
        raise app.UsageError(
            f"--size of {FLAGS.family} is {FLAGS.size!r}. "
            f"Expected one of {list(sizes)}."
        )
    return sizes[FLAGS.size]


def adam():
    """The Keras optimizer of all training benchmarks."""
    import star_keras  # noqa: F401  isort: skip  (selects the backend)
    import keras

    return keras.optimizers.Adam(1e-4, global_clipnorm=1.0)
