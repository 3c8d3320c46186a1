"""GPT-J as a KerasHub `CausalLM`: training, cached decoding, `generate()`."""

import keras
from keras import ops
from keras_hub.models import CausalLM

from star_keras.models.gpt_j_backbone import GPTJBackbone, OptionalPackedInputs
from star_keras.models.gpt_j_causal_lm_preprocessor import (
    GPTJCausalLMPreprocessor,
)
from star_keras.models.gpt_j_hugging_face import (
    find_hugging_face_gpt_j,
    load_hugging_face,
)


@keras.saving.register_keras_serializable(package="star_keras")
class GPTJCausalLM(OptionalPackedInputs, CausalLM):
    """An end-to-end GPT-J language model.

    Like every KerasHub `CausalLM` it has `fit()`, `generate()`,
    `save_to_preset()` and `from_preset()`. Its head is not tied to the token
    embedding and has a bias.

    Args:
        backbone: A `GPTJBackbone`.
        preprocessor: A `GPTJCausalLMPreprocessor`, or `None` for token ids
            in, token ids out.

    Example:
    ```python
    model = GPTJCausalLM.from_preset("runs/arithmetic/preset")
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

    def compile(self, optimizer="auto", loss="auto", **kwargs):
        """Like `CausalLM.compile`, with a loss that is a true weighted mean.

        `"auto"` divides the summed cross-entropy by the summed weights, so it
        does not depend on how much padding a batch holds.
        """
        if loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        super().compile(optimizer=optimizer, loss=loss, **kwargs)

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """A model from a preset, or from a Hugging Face GPT-J.

        Args:
            preset: Directory that `save_to_preset()` or transformers wrote, or
                a handle like `"hf://EleutherAI/gpt-j-6b"`.
            load_weights: bool. Defaults to `True`.
            **kwargs: Arguments of the backbone, e.g. `dtype="bfloat16"`.
        """
        directory = find_hugging_face_gpt_j(preset)
        if directory is None:
            return super().from_preset(preset, load_weights=load_weights, **kwargs)
        return load_hugging_face(cls, directory, load_weights, **kwargs)

    # KerasHub would put the optimizer's state into a preset as well.

    def save_task_weights(self, filepath):
        keras.saving.save_weights(self, filepath, objects_to_skip=self._not_head())

    def load_task_weights(self, filepath):
        keras.saving.load_weights(self, filepath, objects_to_skip=self._not_head())

    def _not_head(self):
        return [*self.backbone._flatten_layers(), self.optimizer]

    def call_with_cache(
        self,
        token_ids,
        cache,
        cache_update_index,
        prefix_cache=None,
        prefix_length=None,
    ):
        """One forward pass that reads and extends a key-value cache.

        Args:
            token_ids: int tensor `(batch, length)`.
            cache: a tuple with one `(key, value)` pair per layer, as made by
                `build_cache()`.
            cache_update_index: int scalar, or int tensor `(batch,)` with a
                position for each row. Position of the first of the tokens;
                the cache must hold all positions before it.
            prefix_cache: optional cache of batch size 1, which holds a prefix
                that all rows share. The rows then begin behind it, and
                `cache` and `cache_update_index` are of what follows.
            prefix_length: int scalar. Tokens of the prefix; further places of
                `prefix_cache` are padding.

        Returns:
            `(logits, hidden_states, cache)` with shapes
            `(batch, length, vocabulary_size)` and
            `(batch, length, hidden_dim)`.
        """
        x = self.backbone.token_embedding(token_ids)
        updated = []
        for layer, layer_cache, layer_prefix in zip(
            self.backbone.transformer_layers,
            cache,
            prefix_cache or [None] * len(cache),
            strict=True,
        ):
            x, layer_cache = layer(
                x,
                cache=layer_cache,
                cache_update_index=cache_update_index,
                prefix_cache=layer_prefix,
                prefix_length=prefix_length,
            )
            updated.append(layer_cache)
        hidden_states = self.backbone.layer_norm(x)
        return self.lm_head(hidden_states), hidden_states, tuple(updated)

    def build_cache(self, batch_size, length):
        """An empty cache.

        Returns:
            A tuple with one `(key, value)` pair per layer, each a tensor of
            zeros `(batch_size, num_heads, length, head_dim)` in the compute
            dtype. (Heads before positions: a decoding step is 10 times slower
            on CPU the other way round.)
        """
        backbone = self.backbone
        head_dim = backbone.hidden_dim // backbone.num_heads
        shape = (batch_size, backbone.num_heads, length, head_dim)

        def zeros():
            return ops.zeros(shape, dtype=self.compute_dtype)

        return tuple((zeros(), zeros()) for _ in range(backbone.num_layers))

    def _build_cache(self, token_ids):
        # The name and the result that KerasHub's own code expects.
        cache = self.build_cache(*ops.shape(token_ids))
        _, hidden_states, cache = self.call_with_cache(token_ids, cache, 0)
        return hidden_states, cache

    def generate_step(self, inputs, stop_token_ids=None):
        """Compiled part of `generate()` for one batch.

        Args:
            inputs: dict with `token_ids` and `padding_mask`, both
                `(batch, length)`; prompts stand left, padding right.
            stop_token_ids: optional tuple of ids that end a row.

        Returns:
            A dict of the same shapes: prompts continued, and a mask of what
            is prompt or completion. After its end a row is as it was.
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
