"""GPT-NeoX and Pythia as a KerasHub `CausalLM`, with its preprocessor."""

import keras
from keras_hub.models import CausalLMPreprocessor

from star_keras.models.families import Family, register_family
from star_keras.models.hugging_face.hugging_face_tokenizer import HuggingFaceTokenizer
from star_keras.models.pythia.pythia_backbone import PythiaBackbone
from star_keras.models.reversible_causal_lm import ReversibleCausalLM


@keras.saving.register_keras_serializable(package="star_keras")
class PythiaCausalLMPreprocessor(CausalLMPreprocessor):
    """Rows of token ids, see `keras_hub.models.CausalLMPreprocessor`."""

    backbone_cls = PythiaBackbone
    tokenizer_cls = HuggingFaceTokenizer


@keras.saving.register_keras_serializable(package="star_keras")
class PythiaCausalLM(ReversibleCausalLM):
    """A language model on a `PythiaBackbone`, see `ReversibleCausalLM`."""

    backbone_cls = PythiaBackbone
    preprocessor_cls = PythiaCausalLMPreprocessor


register_family(Family(model=PythiaCausalLM))
