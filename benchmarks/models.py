"""Sizes of the measured models, our GPT-J and its optimizer.

Functions import Keras themselves, since `load_libraries` has to come before.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a GPT-J. The MLP is four times as wide as the blocks."""

    num_layers: int
    hidden_dim: int
    num_heads: int
    vocabulary_size: int

    @property
    def rotary_dim(self) -> int:
        return self.hidden_dim // self.num_heads // 2

    def forward_flops(self, tokens: int, attended: float, head_tokens: int) -> float:
        """FLOPs of the matrix products of a forward pass.

        Args:
            tokens: Tokens that go through the blocks.
            attended: Number of pairs of a query and a key.
            head_tokens: Tokens that go through the head.
        """
        width = self.hidden_dim
        weights, attention = 2 * 12 * width**2 * tokens, 4 * width * attended
        head = 2 * width * self.vocabulary_size * head_tokens
        return self.num_layers * (weights + attention) + head


SIZES = {
    "tiny": Size(num_layers=1, hidden_dim=64, num_heads=2, vocabulary_size=512),
    "small": Size(num_layers=4, hidden_dim=256, num_heads=4, vocabulary_size=512),
    "base": Size(num_layers=12, hidden_dim=768, num_heads=12, vocabulary_size=50_400),
    # The preset "arithmetic_base".
    "arithmetic": Size(num_layers=3, hidden_dim=128, num_heads=4, vocabulary_size=289),
}


def make_gpt_j(size: Size, preprocessor=None):
    """A `GPTJCausalLM` with random weights, not compiled."""
    from star_keras.models import GPTJBackbone, GPTJCausalLM

    backbone = GPTJBackbone(
        vocabulary_size=size.vocabulary_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        hidden_dim=size.hidden_dim,
        intermediate_dim=4 * size.hidden_dim,
        rotary_dim=size.rotary_dim,
    )
    return GPTJCausalLM(backbone, preprocessor)


def adam():
    """The Keras optimizer of all training benchmarks."""
    import star_keras  # noqa: F401  isort: skip  (selects the backend)
    import keras

    return keras.optimizers.Adam(1e-4, global_clipnorm=1.0)
