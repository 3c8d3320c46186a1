"""GPT-J as a KerasHub causal language model. Knows nothing of STaR."""

from star_keras.models.gpt_j_attention import GPTJAttention
from star_keras.models.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j_causal_lm import GPTJCausalLM
from star_keras.models.gpt_j_causal_lm_preprocessor import (
    GPTJCausalLMPreprocessor,
)
from star_keras.models.gpt_j_decoder import GPTJDecoder
from star_keras.models.gpt_j_tokenizer import GPTJTokenizer

__all__ = [
    "GPTJAttention",
    "GPTJBackbone",
    "GPTJCausalLM",
    "GPTJCausalLMPreprocessor",
    "GPTJDecoder",
    "GPTJTokenizer",
]
