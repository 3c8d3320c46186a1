"""What each KerasHub family adds: its embedding, its blocks, its norm, its head.

The families here have attention layers that call the function of
`star_keras.models.attention_scope.attention_scope`.
"""

import dataclasses
import typing
from collections.abc import Callable

import jax
import keras_hub
from keras import ops

# They change layers of KerasHub.
from star_keras.models import corrections, flat_tokens, layers_without_seam  # noqa: F401
from star_keras.utils.errors import invalid


class Head(typing.NamedTuple):
    """The language-model head of a network: `hidden_states @ kernel + bias`.

    Attributes:
        kernel: float array `(hidden_dim, vocabulary_size)`, in the dtype of the
            logits.
        bias: float array `(vocabulary_size,)`, or `None`.
        soft_cap: float, or `None`. Logits become
            `soft_cap * tanh(logits / soft_cap)`.
        is_tied: bool. Whether `kernel` is the transposed table of an embedding.
    """

    kernel: typing.Any
    bias: typing.Any = None
    soft_cap: float | None = None
    is_tied: bool = False

    def logits(self, hidden_states):
        """Logits `(..., vocabulary_size)` of hidden states `(..., hidden_dim)`."""
        states, kernel = ops.cast(hidden_states, self.kernel.dtype), self.kernel
        if self.is_tied:
            # Else XLA for TPUs copies the table into another order before a loop.
            states, table = jax.lax.optimization_barrier((states, kernel.T))
            kernel = table.T
        logits = states @ kernel
        if self.bias is not None:
            logits = logits + self.bias
        if self.soft_cap is not None:
            logits = ops.tanh(logits / self.soft_cap) * self.soft_cap
        return logits


def tied_head(model):
    """The head of a model whose `ReversibleEmbedding` makes the logits."""
    embedding = model.backbone.token_embedding
    is_tied = embedding.tie_weights
    if is_tied:
        kernel = ops.transpose(embedding.embeddings)
    else:
        kernel = ops.convert_to_tensor(embedding.reverse_embeddings)
    dtype = embedding.reverse_dtype or embedding.compute_dtype
    return Head(ops.cast(kernel, dtype), None, embedding.logit_soft_cap, is_tied)


def embed_tokens(backbone, token_ids, training=False):
    """Embeddings of tokens, without positions."""
    del training
    return backbone.token_embedding(token_ids)


def _embed_gpt2(backbone, token_ids, training=False):
    tokens = backbone.token_embedding(token_ids)
    x = backbone.embeddings_add((tokens, backbone.position_embedding(tokens)))
    return backbone.embeddings_dropout(x, training=training)


def embed_with_dropout(backbone, token_ids, training=False):
    """Embeddings of tokens, without positions, behind a dropout."""
    x = backbone.token_embedding(token_ids)
    return backbone.embeddings_dropout(x, training=training)


def _embed_opt(backbone, token_ids, training=False):
    del training
    return backbone.embeddings(token_ids)


def _embed_gemma(backbone, token_ids, training=False):
    del training
    x = backbone.token_embedding(token_ids)
    return x * ops.cast(ops.sqrt(backbone.hidden_dim), x.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How the parts of a causal LM are reached.

    Its blocks are `backbone.transformer_layers`.

    Attributes:
        model: The stock class of the causal LM.
        embed: Callable `(backbone, token_ids, training) -> hidden_states`.
        norm: Name of the last norm, an attribute of the backbone.
        head: Callable `(model) -> Head`.
        attention_dropout: Name of the rate of the dropout within attention, an
            attribute of the backbone; `None` if there is no such dropout.
        supports: Callable `(backbone) -> bool`. Whether all that its configuration
            asks for is computed.
    """

    model: type
    embed: Callable = embed_tokens
    norm: str = "layer_norm"
    head: Callable = tied_head
    attention_dropout: str | None = "dropout"
    supports: Callable = lambda backbone: True


_FAMILIES: dict[type, Family] = {}  # by the class of the backbone


def register_family(family: Family):
    """Add a family.

    Args:
        family: What it adds. The attention layers of its blocks call the function of
            `attention_scope`.
    """
    _FAMILIES[family.model.backbone_cls] = family


for _family in (
    Family(model=keras_hub.models.GPT2CausalLM, embed=_embed_gpt2),
    Family(model=keras_hub.models.OPTCausalLM, embed=_embed_opt),
    Family(model=keras_hub.models.LlamaCausalLM),
    Family(model=keras_hub.models.Llama3CausalLM),
    Family(model=keras_hub.models.MistralCausalLM),
    Family(model=keras_hub.models.QwenCausalLM),
    Family(model=keras_hub.models.Qwen3CausalLM),
    Family(model=keras_hub.models.GemmaCausalLM, embed=_embed_gemma),
    Family(
        model=keras_hub.models.Gemma3CausalLM,
        embed=_embed_gemma,
        # Images are more inputs than tokens; embedding models see both ways.
        supports=lambda backbone: (
            backbone.text_only_model and not backbone.use_bidirectional_attention
        ),
    ),
    Family(
        model=keras_hub.models.MixtralCausalLM,
        supports=lambda backbone: (
            # More results than hidden states; noise that KerasHub cannot draw.
            not backbone.transformer_layers[0].output_router_logits
            and not backbone.router_jitter_noise
        ),
    ),
    Family(
        model=keras_hub.models.Phi3CausalLM,
        # The other scaling depends on the length of the longest row.
        supports=lambda backbone: backbone.rope_scaling_type is None,
    ),
    Family(model=keras_hub.models.GPTNeoXCausalLM, embed=embed_with_dropout),
    Family(
        model=keras_hub.models.SmolLM3CausalLM,
        norm="norm",
        attention_dropout="attention_dropout",
    ),
):
    register_family(_family)


def family_of(model) -> Family | None:
    """The family of a causal LM; `None` if it is not among those known.

    Args:
        model: A `keras_hub.models.CausalLM`.
    """
    backbone = model.backbone
    family = _FAMILIES.get(type(backbone))
    if family is None or not family.supports(backbone):
        return None
    # A subclass may have a head of its own, and would say so to `generate`.
    if (
        getattr(type(model), "call_with_cache", None)
        is not family.model.call_with_cache
    ):
        return None
    quantized = (getattr(x, "quantization_mode", None) for x in model._flatten_layers())
    return None if any(quantized) else family


def known_family(model) -> Family:
    """The family of a causal LM.

    Args:
        model: A `keras_hub.models.CausalLM`.

    Raises:
        ValueError: if the family is not among those known.
    """
    family = family_of(model)
    if family is None:
        names = sorted(c.__name__.removesuffix("Backbone") for c in _FAMILIES)
        raise invalid(
            "model",
            f"a causal LM of one of the families {names}, not quantized, with the head "
            "of its family",
            type(model).__name__,
            "Use `BatchSampler` and rows without packing for other models.",
        )
    return family
