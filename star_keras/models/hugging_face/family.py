"""What is known of a family of models in Hugging Face directories."""

import dataclasses
import inspect
from collections.abc import Callable


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFamily:
    """One `model_type`, and the KerasHub model that computes it.

    Attributes:
        architecture: transformers' name of its class of causal LMs.
        causal_lm: Subclass of `keras_hub.models.CausalLM`, which names the classes of
            its backbone and its preprocessor.
        read_config: Callable from `Fields` to the arguments of the backbone. It takes
            the fields that it honours, and refuses what the backbone cannot compute.
        write_config: The inverse: callable from a backbone to a config.json.
        weights: Callable from a backbone to a dict from transformers' name of a
            tensor to its `StoredWeight`.
        general: optional subclass of `keras_hub.models.CausalLM`, used when
            `read_config` returns an argument that the backbone does not take.
        prefix: Prefix of the names, which some files leave out.
        renamed: Names of tensors in older files, and their names today.
        length: The field with the longest sequence.
    """

    architecture: str
    causal_lm: type
    read_config: Callable
    write_config: Callable
    weights: Callable
    general: type | None = None
    prefix: str = "model."
    renamed: dict = dataclasses.field(default_factory=dict)
    length: str = "max_position_embeddings"

    def computing(self, arguments):
        """`causal_lm`, or `general` if its backbone lacks one of the arguments."""
        known = inspect.signature(self.causal_lm.backbone_cls).parameters
        return self.causal_lm if arguments.keys() <= known.keys() else self.general
