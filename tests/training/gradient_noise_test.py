import numpy as np
import pytest

from star_keras.training.gradient_noise import (
    gradient_noise_scale,
    gradient_statistics,
)


@pytest.mark.parametrize("part_weights", ([6, 6], [1, 2, 3, 10]))
def test_estimates_are_unbiased_for_parts_of_any_weights(part_weights):
    """100,000 batches of random gradients of tokens, three numbers each."""
    rng = np.random.default_rng(0)
    mean, deviation = np.array([1.0, -2.0, 0.5]), np.array([3.0, 1.0, 2.0])
    total_weight = sum(part_weights)
    parts = [
        mean + deviation * rng.normal(size=(100_000, 3)) / np.sqrt(weight)
        for weight in part_weights
    ]
    shares = np.array(part_weights) / total_weight
    batch = sum(share * part for share, part in zip(shares, parts, strict=True))
    part_square = sum(
        share * (part**2).sum(-1) for share, part in zip(shares, parts, strict=True)
    )
    signal, noise = gradient_statistics(
        part_square, (batch**2).sum(-1), len(parts), total_weight
    )
    assert signal.mean() == pytest.approx((mean**2).sum(), rel=0.02)
    assert noise.mean() == pytest.approx((deviation**2).sum(), rel=0.02)


def test_noise_scale_is_the_tokens_at_which_half_of_the_square_is_noise():
    signal, noise = 2.0, 20.0
    tokens = float(gradient_noise_scale(signal, noise))
    assert noise / tokens == signal


def test_noise_scale_of_a_signal_estimated_as_negative_is_nan():
    assert np.isnan(gradient_noise_scale(-9.0, 1.0))
