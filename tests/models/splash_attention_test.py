"""The kernel for TPUs, interpreted, against attention with all scores."""

import types

import numpy as np
import pytest

from star_keras import testing
from star_keras.models import attention_kernels
from star_keras.models.splash_attention import splash_applies, splash_attend
from tests.conftest import run_on_eight_devices
from tests.models.attention_kernels import (
    attend_with_all_scores,
    check_bfloat16,
    flash_attention_disabled,
    hidden_and_gradients,
    make_arrays,
    outputs_and_gradients,
    packed_rows,
)

CASES = [
    (2, 1, 64, {"scale": 0.125}),
    (1, 3, 128, {"scale": 0.07, "sliding_window": 100}),
    (1, 2, 256, {"scale": 0.06, "soft_cap": 5.0}),
    (2, 2, 96, {"scale": 0.1, "sliding_window": 7, "soft_cap": 20.0}),
]


@pytest.mark.parametrize(("heads", "group", "head_dim", "options"), CASES)
def test_outputs_and_gradients_are_those_of_all_scores(heads, group, head_dim, options):
    arrays = make_arrays(heads, group, head_dim)
    expected = outputs_and_gradients(attend_with_all_scores, *arrays, options)
    found = outputs_and_gradients(splash_attend, *arrays, options)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_bfloat16_differs_by_its_rounding():
    check_bfloat16(splash_attend)


@pytest.mark.parametrize("family", ["gpt_j", "llama", "qwen3", "gemma2", "mistral"])
def test_packed_rows_of_a_model_are_those_of_all_scores(family, monkeypatch):
    model = testing.tiny_causal_lm(family)
    rows = packed_rows()
    expected = hidden_and_gradients(model, rows, False)
    monkeypatch.setattr(attention_kernels, "splash_applies", lambda length: True)
    found = hidden_and_gradients(model, rows, family == "llama")
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=2e-5 * scale)


def test_every_layout_of_a_mesh_computes_the_same():
    found = run_on_eight_devices("models_kernel_on_a_mesh", "splash")
    assert found.pop("devices") == 8
    assert len(found) == 7
    for case, difference in found.items():
        assert difference < 2e-5, case


def test_other_platforms_and_lengths_attend_with_all_scores():
    assert not splash_applies(1024)  # no TPU here


def test_disabling_flash_attention_turns_the_kernel_off():
    tpu = types.SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    assert splash_applies(1024, tpu)
    with flash_attention_disabled():
        assert not splash_applies(1024, tpu)
