"""GPT-J as a KerasHub `CausalLM`: cached decoding, `generate()`, presets."""

import keras
from keras import ops
from keras_hub.models import CausalLM

from star_keras.models.cached_generation import CachedGeneration
from star_keras.models.families import (
    Family,
    Head,
    embed_with_dropout,
    register_family,
)
from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j.gpt_j_causal_lm_preprocessor import (
    GPTJCausalLMPreprocessor,
)
from star_keras.models.gpt_j.gpt_j_hugging_face import (
    find_hugging_face_gpt_j,
    load_hugging_face_gpt_j,
)
from star_keras.models.packed_causal_lm import PackedCausalLM
from star_keras.models.preset_files import check_files, check_head
from star_keras.models.presets import preset_path


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJCausalLM(PackedCausalLM, CachedGeneration, CausalLM):
    """An end-to-end GPT-J language model.

    Like every KerasHub `CausalLM` it has `fit()`, `generate()`,
    `save_to_preset()` and `from_preset()`. Its head is not tied to the token
    embedding and has a bias.

    Args:
        backbone: A `GPTJBackbone`.
        preprocessor: optional `GPTJCausalLMPreprocessor`. Without one the inputs
            and outputs are token ids.
        **kwargs: Arguments of `keras_hub.models.CausalLM`, e.g. `name`, or
            `compile=False` for a model without an optimizer.

    Call arguments (a dictionary):
        token_ids: int tensor `(batch, length)`.
        padding_mask: int or bool tensor `(batch, length)`, 1 for real tokens.
        segment_ids: optional int tensor `(batch, length)`. See `PackedCausalLM`.
        positions: optional int tensor `(batch, length)`. See `PackedCausalLM`.

    Returns:
        Logits of the next tokens, a float tensor
        `(batch, length, vocabulary_size)`.

    Example:
    ```python
    model = GPTJCausalLM.from_preset("arithmetic_base")
    model.compile(sampler="greedy")
    model.generate("Input:\\n1 2 + 3 4\\nTarget:\\n")
    ```
    """

    backbone_cls = GPTJBackbone
    preprocessor_cls = GPTJCausalLMPreprocessor

    def __init__(self, backbone, preprocessor=None, **kwargs):
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.lm_head = keras.layers.Dense(
            backbone.vocabulary_size,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=backbone.hidden_dim**-0.5
            ),
            dtype=backbone.dtype_policy,
            name="lm_head",
        )

        # === Functional Model ===
        inputs = backbone.input
        super().__init__(
            inputs=inputs, outputs=self.lm_head(backbone(inputs)), **kwargs
        )

        self.make_step_metrics()

    # === Saving ===

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """A model from a preset, or from a Hugging Face GPT-J.

        Args:
            preset: string or path. Name of a preset of this package, e.g.
                `"arithmetic_base"`; a directory written by `save_to_preset()` or
                by transformers; or a handle like `"hf://EleutherAI/gpt-j-6b"`.
            load_weights: bool. Whether to read the weights. Random otherwise.
                Defaults to `True`.
            **kwargs: Arguments of the backbone, e.g. `dtype="bfloat16"`.

        Returns:
            A `GPTJCausalLM`.

        Raises:
            ValueError: if there is no such preset, or its weights do not match
                its configuration.
            FileNotFoundError: if the preset lacks a file.
            ImportError: if the weights are PyTorch files and PyTorch is missing.
        """
        preset = preset_path(preset)
        directory = find_hugging_face_gpt_j(preset)
        if directory is None:
            check_files(preset)
            model = super().from_preset(preset, load_weights=load_weights, **kwargs)
            if load_weights:
                check_head(model, preset)
            return model
        return load_hugging_face_gpt_j(cls, directory, load_weights, **kwargs)


def _head(model):
    head, dtype = model.lm_head, model.lm_head.compute_dtype
    return Head(ops.cast(head.kernel, dtype), ops.cast(head.bias, dtype))


register_family(
    Family(
        model=GPTJCausalLM,
        embed=embed_with_dropout,
        head=_head,
        attention_dropout=None,
    ),
)
