"""A general Llama as a KerasHub `CausalLM`, with its preprocessor."""

import keras
from keras_hub.models import CausalLMPreprocessor

from star_keras.models.families import Family, register_family
from star_keras.models.general_llama.general_llama_backbone import GeneralLlamaBackbone
from star_keras.models.hugging_face.hugging_face_tokenizer import HuggingFaceTokenizer
from star_keras.models.reversible_causal_lm import ReversibleCausalLM


@keras.saving.register_keras_serializable(package="star_keras")
class GeneralLlamaCausalLMPreprocessor(CausalLMPreprocessor):
    """Rows of token ids, see `keras_hub.models.CausalLMPreprocessor`."""

    backbone_cls = GeneralLlamaBackbone
    tokenizer_cls = HuggingFaceTokenizer


@keras.saving.register_keras_serializable(package="star_keras")
class GeneralLlamaCausalLM(ReversibleCausalLM):
    """A language model on a `GeneralLlamaBackbone`, see `ReversibleCausalLM`.

    `load_causal_lm` uses it for Hugging Face directories with settings that KerasHub's
    class of their family lacks.
    """

    backbone_cls = GeneralLlamaBackbone
    preprocessor_cls = GeneralLlamaCausalLMPreprocessor


register_family(Family(model=GeneralLlamaCausalLM))
