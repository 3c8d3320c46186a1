"""The training step: the head in the loss, accumulation, gradient statistics."""

import jax
import jax.numpy as jnp
import keras

from star_keras.distribution import CausalLMParallel
from star_keras.training import gradient_noise
from star_keras.training.accumulation import accumulated_gradients, squared_norm
from star_keras.training.checks import checked_options
from star_keras.training.evaluation_step import EvaluationStep
from star_keras.training.objectives import RPO, Likelihood

_STEP_METRICS = (
    "gradient_norm",
    "token_utilization",
    "gradient_signal",
    "gradient_noise",
    "pair_accuracy",
    "pair_margin",
    "share_skipped",
)


class TrainingStep(EvaluationStep):
    """Mixin of a KerasHub causal LM with a `compile` and a `train_step` of its own.

    A class with this mixin calls `make_step_metrics()` when it is made. It has
    `hidden_states(inputs, training)`, a float array `(batch, length, hidden_dim)`, and
    `head()`, with the `kernel`, `bias` and `soft_cap` of `head_cross_entropy`.

    Attributes:
        z_loss: float. Weight of the z-loss, see `compile`.
        gradient_accumulation_steps: int. See `compile`.
        gradient_checkpointing: bool. See `compile`.
        objective: str. See `compile`.
        dpo_beta: float. See `compile`.
        nll_weight: float. See `compile`.
    """

    z_loss = 0.0
    objective, dpo_beta, nll_weight = "likelihood", 0.1, 1.0
    gradient_checkpointing = False
    gradient_accumulation_steps = 1

    def make_step_metrics(self):
        """Make the averages over an epoch's steps that `train_step` reports."""
        self._step_metrics = {name: keras.metrics.Mean(name) for name in _STEP_METRICS}

    def compile(
        self,
        optimizer="auto",
        loss="auto",
        *,
        weighted_metrics="auto",
        gradient_accumulation_steps=1,
        z_loss=0.0,
        gradient_checkpointing=False,
        objective="likelihood",
        dpo_beta=0.1,
        nll_weight=1.0,
        **kwargs,
    ):
        """Configure training; `CausalLM.compile` with a true weighted mean as loss.

        The loss `"auto"` is the summed cross-entropy divided by the summed sample
        weights. It does not depend on the amount of padding in a batch. Without
        metrics of the user, `fit` also

        - never has the logits of all tokens in memory, see `head_cross_entropy`,
          nor has `evaluate`, see `EvaluationStep`;
        - logs these metrics, averaged over the steps of the epoch:
          `gradient_norm`, the norm before clipping;
          `token_utilization`, the share of tokens that are not padding;
          `share_skipped`, with a `LossScaleOptimizer`, the share of the steps that it
          skips since a gradient has overflowed. The other averages leave out values of
          a step that are not finite then; they are NaN if no step has others.

        With gradient accumulation, but not over several slices, `fit` also logs
        `gradient_signal`, `gradient_noise` and `gradient_noise_scale`, see
        `star_keras.training.gradient_noise`. Batches with far fewer trained tokens
        than the noise scale waste steps; batches with far more waste tokens.

        Args:
            optimizer: see `keras.Model.compile`.
            loss: see `keras.Model.compile`. Defaults to `"auto"`.
            weighted_metrics: see `keras.Model.compile`. Defaults to `"auto"`,
                which is none for the loss `"auto"`.
            gradient_accumulation_steps: int. Number of parts of a batch. The
                parts go through the model one after the other. The result is that
                of the whole batch: one division by the weights of all parts, and
                one update. Must divide the batch size. Defaults to `1`.
            z_loss: float. Weight of PaLM's z-loss in training, see
                `head_cross_entropy`. PaLM uses `1e-4`. Defaults to `0.0`.
            gradient_checkpointing: bool. Whether to compute each block's activations
                again in the backward pass, to save memory. Defaults to `False`.
            objective: str. `"rpo"` trains on rows of pairs, see
                `star_keras.training.objectives.RPO`, and `fit` logs `pair_accuracy`,
                the share of pairs with a positive margin, and `pair_margin`. The
                gradient statistics count pairs as tokens. Defaults to `"likelihood"`.
            dpo_beta: float. See `RPO`. Defaults to `0.1`.
            nll_weight: float. See `RPO`. Defaults to `1.0`.
            **kwargs: see `CausalLM.compile`.

        Raises:
            ValueError: if a number is out of bounds, one of these is set together
                with a loss or metrics of the user, or the optimizer accumulates.
        """
        self._head_in_loss = loss == "auto" and not kwargs.get("metrics")
        if loss == "auto":
            if weighted_metrics == "auto":
                weighted_metrics = None
            self._head_in_loss = self._head_in_loss and not weighted_metrics
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        options = checked_options(
            optimizer,
            head_in_loss=self._head_in_loss,
            gradient_accumulation_steps=gradient_accumulation_steps,
            z_loss=z_loss,
            gradient_checkpointing=gradient_checkpointing,
            objective=objective,
            dpo_beta=dpo_beta,
            nll_weight=nll_weight,
        )
        for name, value in options.items():
            setattr(self, name, value)
        super().compile(
            optimizer=optimizer, loss=loss, weighted_metrics=weighted_metrics, **kwargs
        )

    # === One step ===

    def train_step(self, state, data):
        """One update of the weights, with the signature of Keras on JAX.

        Args:
            state: tuple of the values of the trainable variables, the
                non-trainable variables, the optimizer's variables and the
                metrics' variables. Each is a list of arrays.
            data: tuple `(x, y)` or `(x, y, sample_weight)`: `x` a dict of int
                arrays `(batch, length)`, see `make_row`, `y` an int array of this shape
                of next tokens, `sample_weight` a float array of this shape.

        Returns:
            `(logs, state)`: a dict of float32 scalars, and the updated state.

        Raises:
            ValueError: if `gradient_accumulation_steps` does not divide the batch.
        """
        if not self._head_in_loss:
            return super().train_step(state, data)
        trainable, non_trainable, optimizer_variables, metrics_variables = state
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        if weights is None:
            weights = jnp.ones(y.shape)
        weights = weights.astype("float32")
        loss, gradients, non_trainable, logs = self._gradients(
            trainable, non_trainable, optimizer_variables, (x, y, weights)
        )
        logs["gradient_norm"] = jnp.sqrt(squared_norm(gradients))
        # For float16 the optimizer scales the loss. Its update divides again.
        mapping = zip(self.optimizer.variables, optimizer_variables, strict=True)
        with keras.StatelessScope(list(mapping)):
            scale = self.optimizer.scale_loss(1.0)
        powers = {"gradient_norm": 1, "gradient_signal": 2, "gradient_noise": 2}
        for name in powers.keys() & logs.keys():
            logs[name] = logs[name] / scale ** powers[name]
        if self._skips_steps:
            is_finite = self.optimizer.check_finite(gradients)
            logs["share_skipped"] = 1.0 - is_finite.astype("float32")
        if isinstance(x, dict) and "padding_mask" in x:
            logs["token_utilization"] = jnp.mean(x["padding_mask"].astype("float32"))
        trainable, optimizer_variables = self.optimizer.stateless_apply(
            optimizer_variables, gradients, trainable
        )
        metrics, metrics_variables = self._update_metrics_variables(
            metrics_variables, loss, x, y, None, weights
        )
        logs, metrics_variables = self._average(logs, metrics_variables)
        state = trainable, non_trainable, optimizer_variables, metrics_variables
        return {**metrics, **logs}, state

    def get_metrics_result(self):
        # `train_step` adds the averages itself. Evaluation has none.
        results = super().get_metrics_result()
        return {k: v for k, v in results.items() if k not in _STEP_METRICS}

    @property
    def _skips_steps(self):
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    def _objective(self):
        """See `star_keras.training.objectives`."""
        if self.objective == "rpo":
            return RPO(self.dpo_beta, self.nll_weight)
        return Likelihood(self.z_loss)

    def _gradients(self, trainable, non_trainable, optimizer_variables, batch):
        """Loss and gradients of a batch, in parts if the model accumulates.

        Returns:
            `(loss, gradients, non_trainable, logs)`.
        """
        objective = self._objective()

        def weight_of(part):
            x, _, weights = part
            return objective.weight(x, weights)

        total_weight = weight_of(batch)
        # A batch of weight zero has the loss zero.
        divisor = jnp.where(total_weight == 0, 1.0, total_weight)

        def gradients_of(non_trainable, part):
            return jax.value_and_grad(self._part_of_loss, has_aux=True)(
                trainable, non_trainable, optimizer_variables, part, divisor
            )

        num_parts = self.gradient_accumulation_steps
        if num_parts == 1:
            (_, (loss, sums, non_trainable)), gradients = gradients_of(
                non_trainable, batch
            )
            return loss, gradients, non_trainable, sums
        loss, sums, gradients, non_trainable, statistics = accumulated_gradients(
            gradients_of,
            weight_of,
            trainable,
            non_trainable,
            batch,
            num_parts,
            objective.logged,
        )
        return loss, gradients, non_trainable, sums | statistics

    def _part_of_loss(
        self, trainable, non_trainable, optimizer_variables, part, divisor
    ):
        """The loss of some rows, as a part of the mean over the whole batch.

        Returns:
            `(scaled_loss, (loss, sums, non_trainable))`; `sums` are further means.
        """
        x, y, weights = part
        optimizer = self.optimizer
        mapping = [
            *zip(self.trainable_variables, trainable, strict=True),
            *zip(self.non_trainable_variables, non_trainable, strict=True),
        ]
        distribution = keras.distribution.distribution()
        if isinstance(distribution, CausalLMParallel):
            mapping = [(v, distribution.for_lookup(v, value)) for v, value in mapping]
        mapping += zip(optimizer.variables, optimizer_variables, strict=True)
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            loss, sums = self._objective().loss(
                self.hidden_states(x, training=True), self.head(), x, y, weights
            )
            loss, sums = jax.tree.map(lambda total: total / divisor, (loss, sums))
            # Regularization losses count once a batch, not once a part.
            loss = loss + sum(self.losses) / self.gradient_accumulation_steps
            self._clear_losses()
            scaled_loss = optimizer.scale_loss(loss)
        updated = [scope.get_current_value(v) for v in self.non_trainable_variables]
        return scaled_loss, (loss, sums, updated)

    def _average(self, logs, metrics_variables):
        """Averages over this step and the earlier steps of the epoch."""
        mapping = list(zip(self.metrics_variables, metrics_variables, strict=True))
        with keras.StatelessScope(mapping) as scope:
            for name, value in logs.items():
                weight = None
                if self._skips_steps:
                    weight = jnp.isfinite(value)
                    value = jnp.where(weight, value, 0.0)
                self._step_metrics[name].update_state(value, sample_weight=weight)
            averages = {name: _average_of(self._step_metrics[name]) for name in logs}
        if "gradient_signal" in averages:
            averages["gradient_noise_scale"] = gradient_noise.gradient_noise_scale(
                averages["gradient_signal"], averages["gradient_noise"]
            )
        return averages, [scope.get_current_value(v) for v in self.metrics_variables]


def _average_of(metric):
    """The result of a `keras.metrics.Mean`: NaN, not 0, if it has no values."""
    return jnp.where(metric.count > 0, metric.result(), jnp.nan)
