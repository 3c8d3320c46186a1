"""Causal LMs of any known family with packed rows and the training step."""

import functools
import warnings

import keras
import keras_hub
from keras import ops

from star_keras.models.families import known_family
from star_keras.models.forward import head, hidden_states
from star_keras.training.training_step import TrainingStep
from star_keras.utils.errors import invalid


class PackedCausalLM(TrainingStep):
    """Mixin of a `keras_hub.models.CausalLM` of a known family.

    It adds the training step, see `TrainingStep.compile`, and optional inputs for rows
    that pack several sequences.

    Call arguments (a dictionary):
        token_ids: int tensor `(batch, length)`.
        padding_mask: int or bool tensor `(batch, length)`, 1 for real tokens.
        segment_ids: optional int tensor `(batch, length)`. The number of the sequence
            of each token, which sees only tokens of its own sequence. Defaults to one
            sequence a row.
        positions: optional int tensor `(batch, length)`. Counts from 0 in each
            sequence. Defaults to `0, 1, 2, ...`.

    Returns:
        Logits of the next tokens, a float tensor `(batch, length, vocabulary_size)`.
    """

    def call(self, inputs, training=None, mask=None, **kwargs):
        if isinstance(inputs, dict) and inputs.keys() & {"segment_ids", "positions"}:
            x = hidden_states(self, inputs, training=bool(training))
            return head(self).logits(x)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def generate_step(self, inputs, stop_token_ids=None):
        """Compiled part of `generate()` for one batch, also where padding is a stop.

        Many tokenizers pad with an end token. The samplers of KerasHub would take the
        padding behind a prompt for the end of its completion.

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
        if stop_token_ids is None:
            return super().generate_step(inputs, stop_token_ids)
        token_ids = inputs["token_ids"]
        no_stop = min(set(range(len(stop_token_ids) + 1)) - set(stop_token_ids))
        # Only what stands behind the last token of the prompt is padding.
        left = ops.cumsum(ops.flip(ops.cast(inputs["padding_mask"], "int32"), -1), -1)
        replaced = ops.where(ops.flip(left, -1) > 0, token_ids, no_stop)
        found = super().generate_step({**inputs, "token_ids": replaced}, stop_token_ids)
        kept = ops.where(found["padding_mask"], found["token_ids"], token_ids)
        return {**found, "token_ids": kept}

    def hidden_states(self, inputs, training=True):
        """The last hidden states, by default in training, see `forward.hidden_states`.

        Warns of a dropout within attention, which training leaves out.
        """
        name = known_family(self).attention_dropout
        rate = getattr(self.backbone, name, 0) if name else 0
        if rate and training:
            warnings.warn(
                f"{type(self).__name__} has {name}={rate}. In training it acts on "
                "embeddings and on what blocks add, and is left out within attention. "
                f"For none at all, make the backbone with {name}=0.",
                stacklevel=2,
            )
        return hidden_states(
            self,
            inputs,
            training=training,
            gradient_checkpointing=training and self.gradient_checkpointing,
        )

    def head(self):
        """The `Head` of the model's family."""
        return head(self)

    # KerasHub's own two methods would put the optimizer into a preset as well.

    def save_task_weights(self, filepath):
        keras.saving.save_weights(self, filepath, objects_to_skip=self._not_head())

    def load_task_weights(self, filepath):
        keras.saving.load_weights(self, filepath, objects_to_skip=self._not_head())

    def _not_head(self):
        optimizer = getattr(self, "optimizer", None)  # none before `compile()`
        return [
            *self.backbone._flatten_layers(),
            *getattr(self, "_step_metrics", {}).values(),
            *([optimizer] if optimizer else []),
        ]


def packed_causal_lm(model):
    """A causal LM with packed rows and the training step, see `PackedCausalLM`.

    Args:
        model: A `keras_hub.models.CausalLM` of a known family. The result shares its
            backbone and its preprocessor, and thereby its weights.

    Returns:
        `model` itself if it has them already, else an uncompiled model.

    Raises:
        ValueError: if the family of the model is not known.

    Example:
    ```python
    import keras_hub

    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=64, num_layers=1, num_query_heads=2, hidden_dim=8,
        intermediate_dim=16, num_key_value_heads=1,
    )
    llama = keras_hub.models.LlamaCausalLM(backbone=backbone)
    model = packed_causal_lm(llama)
    ```
    """
    if isinstance(model, PackedCausalLM):
        return model
    if not isinstance(model, keras_hub.models.CausalLM):
        raise invalid("model", "a `keras_hub.models.CausalLM`", model)
    known_family(model)
    packed = _packed_class(type(model))(
        backbone=model.backbone,
        preprocessor=model.preprocessor,
        name=model.name,
        compile=False,
    )
    packed.make_step_metrics()
    return packed


@functools.cache
def _packed_class(stock):
    """A class with the mixin that is saved under the name of the stock class."""
    packed = type(
        stock.__name__, (PackedCausalLM, stock), {"__module__": stock.__module__}
    )
    name = keras.saving.get_registered_name(stock)
    package, _, name = name.rpartition(">")
    for cls in (packed, stock):  # the stock class, named last, is the one that loads
        keras.saving.register_keras_serializable(package=package, name=name)(cls)
    return packed
