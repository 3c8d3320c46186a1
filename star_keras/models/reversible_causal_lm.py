"""A causal LM of our own whose token embedding makes the logits as well."""

from keras_hub.models import CausalLM

from star_keras.models.cached_generation import CachedGeneration
from star_keras.models.packed_causal_lm import PackedCausalLM


class ReversibleCausalLM(PackedCausalLM, CachedGeneration, CausalLM):
    """Base of causal LMs whose backbone has a `ReversibleEmbedding`.

    Args:
        backbone: A backbone with a `token_embedding`, tied or not.
        preprocessor: optional `keras_hub.models.CausalLMPreprocessor`. Without one the
            inputs and outputs are token ids.
        **kwargs: Arguments of `keras_hub.models.CausalLM`, e.g. `name`.

    Call arguments (a dictionary): see `PackedCausalLM`.

    Returns:
        Logits of the next tokens, a float tensor `(batch, length, vocabulary_size)`.
    """

    def __init__(self, backbone, preprocessor=None, **kwargs):
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor

        # === Functional Model ===
        inputs = backbone.input
        outputs = backbone.token_embedding(backbone(inputs), reverse=True)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self.make_step_metrics()
