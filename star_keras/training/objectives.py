"""What training minimizes: the likelihood of responses, or RPO on pairs of them.

An objective has two methods. `weight(x, weights)` is the summed weight of a batch, by
which its loss is divided. `loss(hidden_states, head, x, y, weights)` is the summed loss
of some rows, and a dict of further sums that are logged, divided in the same way; its
keys are `logged`.
"""

import jax
import jax.numpy as jnp

from star_keras.training.head_loss import head_cross_entropy, head_log_probs


class Likelihood:
    """The cross-entropy of the response tokens.

    Args:
        z_loss: float. See `head_cross_entropy`.
    """

    logged = ()

    def __init__(self, z_loss: float = 0.0):
        self.z_loss = z_loss

    def weight(self, x, weights):
        """Summed weights of the tokens, a float32 scalar."""
        return jnp.sum(weights)

    def loss(self, hidden_states, head, x, y, weights):
        """The weighted sum of the cross-entropy, a float32 scalar; and nothing else."""
        loss = head_cross_entropy(
            hidden_states,
            head.kernel,
            head.bias,
            y,
            weights,
            soft_cap=head.soft_cap,
            z_loss=self.z_loss,
        )
        return loss, {}


class RPO:
    """DPO on pairs of a right and a wrong completion, and the right one's likelihood.

    With the log-probabilities `w` and `l` of the right and the wrong completion, and
    `w0` and `l0` under the reference model, a pair has the margin
    `dpo_beta * ((w - w0) - (l - l0))` and the loss
    `-log(sigmoid(margin)) - nll_weight * w / (tokens of the right completion)`.

    In a row the segments 1 and 2, 3 and 4 and so on are pairs, the right one first.
    `reference` of `make_row` has `w0` and `l0`. The weight of a pair is that of a
    response token of its right completion. Those of the wrong one need any weight.

    Args:
        dpo_beta: float. See above.
        nll_weight: float. See above.

    Reference:
        [Iterative RPO](https://arxiv.org/abs/2404.19733), equation 1.
    """

    logged = "pair_accuracy", "pair_margin"

    def __init__(self, dpo_beta: float, nll_weight: float):
        self.dpo_beta, self.nll_weight = dpo_beta, nll_weight

    def weight(self, x, weights):
        """Summed weights of the pairs, a float32 scalar."""
        return jnp.sum(_pair_weights(x, weights)[0])

    def loss(self, hidden_states, head, x, y, weights):
        """The weighted sum of the losses of the pairs.

        The logits are computed twice, in chunks: for the log-probabilities, on which
        the gradient of each of them depends, and for their gradients.

        Returns:
            A float32 scalar; and `pair_accuracy`, the weighted number of pairs with a
            positive margin, and `pair_margin`, the weighted sum of the margins.
        """
        hidden, kernel, bias = jax.lax.stop_gradient(
            (hidden_states, head.kernel, head.bias)
        )
        log_probs = head_log_probs(
            hidden, kernel, bias, y, weights, soft_cap=head.soft_cap
        )
        of_pairs = jax.value_and_grad(self._loss_of_pairs, has_aux=True)
        (loss, sums), slopes = of_pairs(log_probs, x, weights)
        # A linear function with the gradient of the loss.
        linear = head_cross_entropy(
            hidden_states,
            head.kernel,
            head.bias,
            y,
            -slopes,
            soft_cap=head.soft_cap,
        )
        return loss + linear - jax.lax.stop_gradient(linear), sums

    def _loss_of_pairs(self, log_probs, x, weights):
        weight, counts = _pair_weights(x, weights)
        # Prompts have no slope.
        log_probs = jnp.where(weights == 0, 0.0, log_probs)
        changes = segment_totals(log_probs, x) - segment_totals(x["reference"], x)
        margin = self.dpo_beta * (_right(changes) - _wrong(changes))
        right = _right(segment_totals(log_probs, x)) / jnp.maximum(counts, 1)
        losses = jax.nn.softplus(-margin) - self.nll_weight * right
        sums = {
            "pair_accuracy": jnp.sum(weight * (margin > 0)),
            "pair_margin": jnp.sum(weight * margin),
        }
        return jnp.sum(weight * losses), sums


def segment_totals(values, x):
    """Sums over the segments of rows.

    Args:
        values: float array `(batch, length)`.
        x: dict with `segment_ids`, an int array `(batch, length)`.

    Returns:
        float array `(batch, length + length % 2)`: those of segment 1, 2 and so on.
    """
    most = values.shape[1] + values.shape[1] % 2

    def totals(values, segments):
        return jax.ops.segment_sum(values, segments, num_segments=most + 1)[1:]

    return jax.vmap(totals)(values, x["segment_ids"])


def _pair_weights(x, weights):
    """Weight of each pair, and number of tokens of its right completion."""
    counts = _right(segment_totals((weights != 0).astype("float32"), x))
    return _right(segment_totals(weights, x)) / jnp.maximum(counts, 1), counts


def _right(totals):
    return totals[:, ::2]


def _wrong(totals):
    return totals[:, 1::2]
