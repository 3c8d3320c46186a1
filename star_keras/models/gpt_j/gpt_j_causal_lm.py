"""GPT-J as a KerasHub `CausalLM`: cached decoding, `generate()`, presets."""

import keras
from keras import ops
from keras_hub.models import CausalLM

from star_keras.models.families import Family, Head, register_family
from star_keras.models.forward import build_cache, extend_cache
from star_keras.models.gpt_j.gpt_j_backbone import GPTJBackbone
from star_keras.models.gpt_j.gpt_j_causal_lm_preprocessor import (
    GPTJCausalLMPreprocessor,
)
from star_keras.models.gpt_j.gpt_j_hugging_face import (
    find_hugging_face_gpt_j,
    load_hugging_face,
)
from star_keras.models.packed_causal_lm import PackedCausalLM
from star_keras.models.preset_files import check_files, check_head
from star_keras.models.presets import preset_path


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJCausalLM(PackedCausalLM, CausalLM):
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
        check_files(preset)
        directory = find_hugging_face_gpt_j(preset)
        if directory is None:
            model = super().from_preset(preset, load_weights=load_weights, **kwargs)
            if load_weights:
                check_head(model, preset)
            return model
        return load_hugging_face(cls, directory, load_weights, **kwargs)

    # === Generation ===

    def call_with_cache(self, token_ids, cache, cache_update_index):
        """One forward pass that reads and extends a key-value cache.

        Args:
            token_ids: int tensor `(batch, length)`.
            cache: tuple with one `(key, value)` pair per layer, see `build_cache`.
            cache_update_index: int scalar. Place in the cache of the first of the
                tokens. The cache must hold all earlier tokens.

        Returns:
            `(logits, hidden_states, cache)`: float tensors
            `(batch, length, vocabulary_size)` and `(batch, length, hidden_dim)`,
            and the updated cache.
        """
        hidden_states, cache = extend_cache(self, token_ids, cache, cache_update_index)
        return self.lm_head(hidden_states), hidden_states, cache

    def _build_cache(self, token_ids):
        # Name and result as in KerasHub, whose own code calls it.
        cache = build_cache(self, *ops.shape(token_ids))
        _, hidden_states, cache = self.call_with_cache(token_ids, cache, 0)
        return hidden_states, cache

    def generate_step(self, inputs, stop_token_ids=None):
        """Compiled part of `generate()` for one batch.

        Args:
            inputs: dict of `token_ids`, an int tensor `(batch, length)`, and
                `padding_mask`, an int or bool tensor `(batch, length)`, 1 for the
                tokens of the prompt. Padding stands on the right.
            stop_token_ids: optional tuple of ints. Token ids that end a row.

        Returns:
            A dict of `token_ids`, an int tensor `(batch, length)` of prompts and
            completions, and `padding_mask`, a bool tensor `(batch, length)`, true
            for both. Tokens after the end of a row are those of `inputs`.
        """
        token_ids = inputs["token_ids"]
        padding_mask = ops.cast(inputs["padding_mask"], "bool")
        if stop_token_ids is not None:
            # Padding is the end token in GPT-J, and the sampler would take it
            # for the end of the completion.
            no_stop = min(set(range(len(stop_token_ids) + 1)) - set(stop_token_ids))
            token_ids = ops.where(padding_mask, token_ids, no_stop)
        hidden_states, cache = self._build_cache(token_ids)
        row_lengths = ops.sum(ops.cast(padding_mask, "int32"), axis=-1)

        def next(prompt, cache, index):
            batch_size = ops.shape(prompt)[0]
            last = ops.slice(prompt, [0, index - 1], [batch_size, 1])
            logits, hidden_states, cache = self.call_with_cache(last, cache, index - 1)
            return (
                ops.squeeze(logits, axis=1),
                ops.squeeze(hidden_states, axis=1),
                cache,
            )

        token_ids = self.sampler(
            next=next,
            prompt=token_ids,
            cache=cache,
            index=ops.min(row_lengths),
            mask=padding_mask,
            stop_token_ids=stop_token_ids,
            hidden_states=hidden_states,
            model=self,
        )
        if stop_token_ids is None:
            return {
                "token_ids": token_ids,
                "padding_mask": ops.ones_like(token_ids, dtype="bool"),
            }
        # A row ends at its first stop token that is not part of the prompt.
        stops = ops.zeros_like(padding_mask)
        for stop_token_id in stop_token_ids:
            stops = stops | (token_ids == stop_token_id)
        stops = ops.cast(stops & ~padding_mask, "int32")
        after_stop = ops.cumsum(stops, axis=-1) - stops > 0
        return {
            "token_ids": ops.where(after_stop, inputs["token_ids"], token_ids),
            "padding_mask": ~after_stop,
        }


def _embed(backbone, token_ids, training=False):
    x = backbone.token_embedding(token_ids)
    return backbone.embeddings_dropout(x, training=training)


def _head(model):
    head, dtype = model.lm_head, model.lm_head.compute_dtype
    return Head(ops.cast(head.kernel, dtype), ops.cast(head.bias, dtype))


register_family(GPTJBackbone, Family(model=GPTJCausalLM, embed=_embed, head=_head))
