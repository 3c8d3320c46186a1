"""The evaluation step: the loss of held-out rows, without the logits of all tokens."""

import jax.numpy as jnp
import keras

from star_keras.training.head_loss import head_cross_entropy


class EvaluationStep:
    """Mixin of a KerasHub causal LM with a `test_step` of its own.

    The base class of `star_keras.training.TrainingStep`, whose `compile` decides
    whether this step computes the loss. It calls `hidden_states` and `head`, see there.
    """

    def test_step(self, state, data):
        """The loss of a batch, with the signature of Keras on JAX.

        `evaluate` and the `val_loss` of `fit` are the mean over all tokens, each
        with its weight, of all batches: the logarithm of the perplexity. Dropout is
        off, and the z-loss does not count.

        Args:
            state: tuple of the values of the trainable variables, the non-trainable
                variables and the metrics' variables. Each is a list of arrays.
            data: tuple `(x, y)` or `(x, y, sample_weight)`, see
                `TrainingStep.train_step`.

        Returns:
            `(logs, state)`: a dict of float32 scalars, and the updated state.
        """
        if not self._head_in_loss:
            return super().test_step(state, data)
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        weights = jnp.ones(y.shape) if weights is None else weights
        weights = weights.astype("float32")
        variables = (
            *self.trainable_variables,
            *self.non_trainable_variables,
            *self.metrics_variables,
        )
        values = [value for part in state for value in part]
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(mapping) as scope:
            head = self.head()
            loss = head_cross_entropy(
                self.hidden_states(x, training=False),
                head.kernel,
                head.bias,
                y,
                weights,
                soft_cap=head.soft_cap,
            )
            total = jnp.sum(weights)
            # A batch of weight zero does not count.
            mean = loss / jnp.where(total == 0, 1.0, total)
            self._loss_tracker.update_state(mean, sample_weight=total)
            logs = self.get_metrics_result()
        trainable, non_trainable, _ = state
        metrics = [scope.get_current_value(v) for v in self.metrics_variables]
        return logs, (trainable, non_trainable, metrics)
