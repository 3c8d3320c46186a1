"""GPT-J as a KerasHub `CausalLM`: training, cached decoding, `generate()`."""

import jax
import jax.numpy as jnp
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
from star_keras.models.head_loss import head_cross_entropy

_STEP_FIGURES = (
    "gradient_norm",
    "real_token_share",
    "gradient_signal",
    "gradient_noise",
)


def _squared_norm(gradients):
    return sum(jnp.sum(g.astype("float32") ** 2) for g in gradients)


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

        # === Averages over an epoch's steps ===
        self._step_metrics = {name: keras.metrics.Mean(name) for name in _STEP_FIGURES}

    def compile(
        self,
        optimizer="auto",
        loss="auto",
        *,
        weighted_metrics="auto",
        gradient_accumulation_steps=1,
        z_loss=0.0,
        **kwargs,
    ):
        """Like `CausalLM.compile`, with a loss that is a true weighted mean.

        `"auto"` divides the summed cross-entropy by the summed weights, so it
        does not depend on how much padding a batch holds. Unless metrics are
        asked for, `fit` then has no logits of all tokens in memory (see
        `head_cross_entropy`), and its logs have the averages over the epoch of
        `gradient_norm` (before clipping) and `real_token_share`. With
        accumulation they also have those of unbiased estimates of the squared
        norm of the true gradient, `gradient_signal`, and of the summed variance
        of one token's gradient, `gradient_noise`; and their quotient, the
        `gradient_noise_scale`: the number of trained tokens a batch at which
        half of the gradient's square is noise. (Few steps can estimate a square
        as negative; the scale is NaN then.) Far smaller batches waste steps, far
        larger ones tokens.

        Args:
            optimizer: see `keras.Model.compile`.
            loss: see `keras.Model.compile`.
            weighted_metrics: see `keras.Model.compile`. `"auto"` is none with
                the loss `"auto"`.
            gradient_accumulation_steps: int. The rows of a batch go through
                the model in this many parts, one after the other, with the
                result of the whole batch: one division by the weights of all
                parts, one update. Must divide the batch size. Defaults to `1`.
            z_loss: float. See `head_cross_entropy`; PaLM's is `1e-4`. Only in
                training. Defaults to `0.0`.
            **kwargs: see `CausalLM.compile`.

        Raises:
            ValueError: if an argument is invalid, or takes the loss `"auto"`
                without metrics, or the optimizer accumulates by itself.

        Reference:
            [An Empirical Model of Large-Batch Training](https://arxiv.org/abs/1812.06162),
            appendix A.1, for the two estimates; both are averaged before they
            are divided.
        """
        if gradient_accumulation_steps < 1:
            raise ValueError(
                "Invalid value for argument `gradient_accumulation_steps`. Expected "
                "at least 1. Received: gradient_accumulation_steps="
                f"{gradient_accumulation_steps!r}."
            )
        if getattr(optimizer, "gradient_accumulation_steps", None):
            raise ValueError(
                "Invalid value for argument `optimizer`. Expected one without "
                "gradient accumulation of its own, which averages averages and "
                "counts parts as steps. Received: "
                "optimizer.gradient_accumulation_steps="
                f"{optimizer.gradient_accumulation_steps}. Pass "
                "`gradient_accumulation_steps` to `compile` instead."
            )
        self._head_in_loss = loss == "auto" and not kwargs.get("metrics")
        if loss == "auto":
            if weighted_metrics == "auto":
                weighted_metrics = None
            self._head_in_loss = self._head_in_loss and not weighted_metrics
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        for name, value, default in (
            ("gradient_accumulation_steps", gradient_accumulation_steps, 1),
            ("z_loss", z_loss, 0.0),
        ):
            if value != default and not self._head_in_loss:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected {default} with "
                    f"a loss or metrics of your own. Received: {name}={value!r}. "
                    'Leave out `metrics` and `weighted_metrics`, and pass loss="auto".'
                )
        self._gradient_accumulation_steps = gradient_accumulation_steps
        self._z_loss = z_loss
        super().compile(
            optimizer=optimizer, loss=loss, weighted_metrics=weighted_metrics, **kwargs
        )

    # === Training ===

    def train_step(self, state, data):
        """One update, see `compile`. The signature is that of Keras on JAX."""
        if not self._head_in_loss:
            return super().train_step(state, data)
        trainable, non_trainable, optimizer_variables, metrics_variables = state
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is None:
            weights = jnp.ones(y.shape)
        weights = weights.astype("float32")
        total_weight = jnp.sum(weights)
        # A batch of weight zero has the loss zero.
        divisor = jnp.where(total_weight == 0, 1.0, total_weight)

        def part_of_gradient(non_trainable, part):
            return jax.value_and_grad(self._part_of_loss, has_aux=True)(
                trainable, non_trainable, optimizer_variables, *part, divisor
            )

        batch = (x, y, weights)
        logs = {}
        if self._gradient_accumulation_steps == 1:
            (_, (loss, non_trainable)), gradients = part_of_gradient(
                non_trainable, batch
            )
        else:

            def accumulate(carry, part):
                gradients, loss, square, non_trainable = carry
                (_, (part_loss, non_trainable)), part_gradients = part_of_gradient(
                    non_trainable, part
                )
                # The mean over tokens of |part's own mean gradient|^2.
                part_weight = jnp.sum(part[2])
                part_square = _squared_norm(part_gradients) * jnp.where(
                    part_weight == 0, 0.0, divisor / part_weight
                )
                gradients = jax.tree.map(jnp.add, gradients, part_gradients)
                carry = (gradients, loss + part_loss, square + part_square)
                return (*carry, non_trainable), None

            zeros = [jnp.zeros(v.shape, "float32") for v in trainable]
            (gradients, loss, square, non_trainable), _ = jax.lax.scan(
                accumulate, (zeros, 0.0, 0.0, non_trainable), self._split(batch)
            )
            gradients = [
                g.astype(v.dtype) for g, v in zip(gradients, trainable, strict=True)
            ]
            # E|G of n tokens|^2 = signal + noise / n, for a part and the batch.
            parts = self._gradient_accumulation_steps
            whole_square = _squared_norm(gradients)
            logs["gradient_signal"] = (parts * whole_square - square) / (parts - 1)
            logs["gradient_noise"] = (
                (square - whole_square) * total_weight / (parts - 1)
            )

        logs["gradient_norm"] = jnp.sqrt(_squared_norm(gradients))
        # The optimizer scales the loss for float16, and back in its update.
        mapping = zip(self.optimizer.variables, optimizer_variables, strict=True)
        with keras.StatelessScope(list(mapping)):
            scale = self.optimizer.scale_loss(1.0)
        powers = {"gradient_norm": 1, "gradient_signal": 2, "gradient_noise": 2}
        for name in powers.keys() & logs.keys():
            logs[name] = logs[name] / scale ** powers[name]
        if isinstance(x, dict) and "padding_mask" in x:
            logs["real_token_share"] = jnp.mean(x["padding_mask"].astype("float32"))
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        metrics, metrics_variables = self._update_metrics_variables(
            metrics_variables, loss, x, y, None, weights
        )
        logs, metrics_variables = self._averages(logs, metrics_variables)
        state = trainable, non_trainable, optimizer_variables, metrics_variables
        return {**metrics, **logs}, state

    def _averages(self, figures, metrics_variables):
        """Averages of a step's figures and those of the steps before it."""
        mapping = list(zip(self.metrics_variables, metrics_variables, strict=True))
        with keras.StatelessScope(mapping) as scope:
            for name, value in figures.items():
                self._step_metrics[name].update_state(value)
            averages = {name: self._step_metrics[name].result() for name in figures}
        if "gradient_signal" in averages:
            signal = averages["gradient_signal"]
            averages["gradient_noise_scale"] = jnp.where(
                signal > 0, averages["gradient_noise"] / signal, jnp.nan
            )
        return averages, [scope.get_current_value(v) for v in self.metrics_variables]

    def get_metrics_result(self):
        # The averages are of training alone; `train_step` adds them.
        results = super().get_metrics_result()
        return {k: v for k, v in results.items() if k not in self._step_metrics}

    def _part_of_loss(
        self, trainable, non_trainable, optimizer_variables, x, y, weights, divisor
    ):
        """The loss of some rows, as a part of the mean over all of the batch.

        Returns:
            `(scaled_loss, (loss, non_trainable))`.
        """
        optimizer = self.optimizer
        mapping = [
            *zip(self.trainable_variables, trainable, strict=True),
            *zip(self.non_trainable_variables, non_trainable, strict=True),
            *zip(optimizer.variables, optimizer_variables, strict=True),
        ]
        head = self.lm_head
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            hidden_states = self.backbone(x, training=True)
            loss = head_cross_entropy(
                hidden_states,
                ops.cast(head.kernel, head.compute_dtype),
                ops.cast(head.bias, head.compute_dtype),
                y,
                weights,
                z_loss=self._z_loss,
            )
            loss = loss / divisor
            # Regularizers and the like, which no batch divides.
            loss = loss + sum(self.losses) / self._gradient_accumulation_steps
            self._clear_losses()
            scaled_loss = optimizer.scale_loss(loss)
        updated = []
        for variable, value in zip(
            self.non_trainable_variables, non_trainable, strict=True
        ):
            new_value = scope.get_current_value(variable)
            updated.append(value if new_value is None else new_value)
        return scaled_loss, (loss, updated)

    def _split(self, batch):
        """Split rows: `(batch, ...)` to `(parts, batch // parts, ...)`."""
        parts = self._gradient_accumulation_steps

        def split(x):
            if x.shape[0] % parts:
                raise ValueError(
                    f"A batch of {x.shape[0]} rows cannot be split into "
                    f"gradient_accumulation_steps={parts} parts. Use a batch size "
                    "that it divides."
                )
            # Every part has rows of every device.
            return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)

        return jax.tree.map(split, batch)

    # === Saving ===

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
        optimizer = getattr(self, "optimizer", None)  # none before `compile()`
        return [
            *self.backbone._flatten_layers(),
            *self._step_metrics.values(),
            *([optimizer] if optimizer else []),
        ]

    # === Generation ===

    def call_with_cache(
        self,
        token_ids,
        cache,
        cache_update_index,
        prefix_cache=None,
        prefix_length=None,
        positions=None,
        cache_positions=None,
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
            positions: optional int tensor `(batch, length)`. Positions of the
                tokens, the prefix counted. Defaults to those that follow from
                `cache_update_index`.
            cache_positions: optional int tensor `(batch, cache_length)`. The
                position of what each place of the cache holds, where a place
                is not a position; needs `positions`. See `GPTJDecoder`.

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
                positions=positions,
                cache=layer_cache,
                cache_update_index=cache_update_index,
                cache_positions=cache_positions,
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
