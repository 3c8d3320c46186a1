"""What is known of a family of models in Hugging Face directories."""

import dataclasses
import inspect
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFamily:
    """One `model_type`, and the KerasHub model that computes it.

    Attributes:
        backbone: Subclass of `keras_hub.models.Backbone`.
        causal_lm: Subclass of `keras_hub.models.CausalLM`.
        preprocessor: Subclass of `keras_hub.models.CausalLMPreprocessor`.
        read_config: Callable from `Fields` to the arguments of the backbone. It takes
            the fields that it honours, and refuses what the backbone cannot compute.
        write_config: The inverse: callable from a backbone to a config.json.
        weights: Callable from a backbone to a dict from transformers' name of a
            tensor to its `StoredWeight`.
        general: optional `StoredFamily`, used when `read_config` returns an argument
            that `backbone` does not take.
        prefix: Prefix of the names, which some files leave out.
        renamed: Names of tensors in older files, and their names today.
        length: The field with the longest sequence.
    """

    backbone: type
    causal_lm: type
    preprocessor: type
    read_config: Callable
    write_config: Callable
    weights: Callable
    general: "StoredFamily | None" = None
    prefix: str = "model."
    renamed: dict = dataclasses.field(default_factory=dict)
    length: str = "max_position_embeddings"

    def computing(self, arguments):
        """This family, or its general form if `backbone` lacks one of the arguments."""
        known = inspect.signature(self.backbone).parameters
        return self if arguments.keys() <= known.keys() else self.general
