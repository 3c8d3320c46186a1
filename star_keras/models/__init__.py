"""Causal language models: KerasHub's families, GPT-J. Knows nothing of STaR."""

from star_keras.models.general_llama.general_llama_backbone import GeneralLlamaBackbone
from star_keras.models.general_llama.general_llama_causal_lm import (
    GeneralLlamaCausalLM,
)
from star_keras.models.gpt_j.gpt_j_attention import GPTJAttention
from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j.gpt_j_causal_lm import GPTJCausalLM
from star_keras.models.gpt_j.gpt_j_causal_lm_preprocessor import (
    GPTJCausalLMPreprocessor,
)
from star_keras.models.gpt_j.gpt_j_decoder import GPTJDecoder
from star_keras.models.gpt_j.gpt_j_mesh_transformer import (
    load_mesh_transformer,
    save_mesh_transformer,
)
from star_keras.models.gpt_j.gpt_j_tokenizer import GPTJTokenizer
from star_keras.models.hugging_face.hugging_face_tokenizer import (
    HuggingFaceTokenizer,
)
from star_keras.models.load_causal_lm import load_causal_lm
from star_keras.models.packed_causal_lm import PackedCausalLM, packed_causal_lm
from star_keras.models.pythia.pythia_backbone import PythiaBackbone
from star_keras.models.pythia.pythia_causal_lm import PythiaCausalLM
from star_keras.models.save_hugging_face import save_hugging_face

__all__ = [
    "GPTJAttention",
    "GPTJBackbone",
    "GPTJCausalLM",
    "GPTJCausalLMPreprocessor",
    "GPTJDecoder",
    "GPTJTokenizer",
    "GeneralLlamaBackbone",
    "GeneralLlamaCausalLM",
    "HuggingFaceTokenizer",
    "PackedCausalLM",
    "PythiaBackbone",
    "PythiaCausalLM",
    "load_causal_lm",
    "load_mesh_transformer",
    "packed_causal_lm",
    "save_hugging_face",
    "save_mesh_transformer",
]
