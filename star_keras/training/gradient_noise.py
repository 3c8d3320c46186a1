"""The gradient noise scale: how many tokens a batch should have.

Reference:
    [An Empirical Model of Large-Batch Training](https://arxiv.org/abs/1812.06162),
    section 2.2 and appendix A.1.
"""

import jax.numpy as jnp


def gradient_statistics(part_square, batch_square, num_parts, total_weight):
    """Unbiased estimates of the gradient's square and variance, from one batch.

    A mean gradient G of n tokens has `E|G|^2 = signal + noise / n`. A batch and its
    parts are two values of n, which gives both unknowns. An estimate from a single
    step can be negative.

    Args:
        part_square: float32 scalar. Mean over the tokens of the batch of the
            squared norm of their part's mean gradient.
        batch_square: float32 scalar. Squared norm of the batch's mean gradient.
        num_parts: int. Number of parts, at least 2.
        total_weight: float32 scalar. Summed weights of the tokens of the batch.

    Returns:
        `(signal, noise)`, float32 scalars: the squared norm of the true gradient,
        and the summed variance of one token's gradient.
    """
    signal = (num_parts * batch_square - part_square) / (num_parts - 1)
    noise = (part_square - batch_square) * total_weight / (num_parts - 1)
    return signal, noise


def gradient_noise_scale(signal, noise):
    """The tokens a batch at which half of the gradient's square is noise.

    Args:
        signal: float32 scalar. See `gradient_statistics`; averaged over steps.
        noise: float32 scalar. See `gradient_statistics`; averaged over steps.

    Returns:
        `noise / signal`, a float32 scalar. NaN if the estimated signal is not
        positive, which happens after few steps.
    """
    return jnp.where(signal > 0, noise / signal, jnp.nan)
