"""The kernel for GPUs, interpreted, against attention with all scores."""

import types

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from star_keras import testing
from star_keras.models import attention_modes, gpu_attention
from star_keras.models.gpu_attention import gpu_attend, gpu_kernel_applies
from tests.conftest import run_on_eight_devices
from tests.models.splash_attention_test import (
    attend_with_all_scores,
    hidden_and_gradients,
    make_arrays,
    outputs_and_gradients,
    packed_rows,
)

CASES = [
    (2, 1, 64, {"scale": 0.125}),
    (1, 3, 128, {"scale": 0.07}),
    (2, 2, 96, {"scale": 1.0}),
    (1, 2, 40, {"scale": 0.2}),
]


@pytest.mark.parametrize(("heads", "group", "head_dim", "options"), CASES)
def test_outputs_and_gradients_are_those_of_all_scores(heads, group, head_dim, options):
    arrays = make_arrays(heads, group, head_dim)
    expected = outputs_and_gradients(attend_with_all_scores, *arrays, options)
    found = outputs_and_gradients(gpu_attend, *arrays, options)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
