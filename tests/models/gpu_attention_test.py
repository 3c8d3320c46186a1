"""The kernel for GPUs, interpreted, against attention with all scores."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from star_keras import testing
from star_keras.models import attention_kernels, gpu_attention
from star_keras.models.gpu_attention import gpu_attend, gpu_kernel_applies
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

A100 = types.SimpleNamespace(platform="gpu", compute_capability="8.0")
CASES = [(2, 1, 64, 0.125), (1, 3, 128, 0.07), (2, 2, 96, 1.0), (1, 2, 40, 0.2)]


@pytest.mark.parametrize(("heads", "group", "head_dim", "scale"), CASES)
def test_outputs_and_gradients_are_those_of_all_scores(heads, group, head_dim, scale):
    arrays = make_arrays(heads, group, head_dim)
    options = {"scale": scale}
    expected = outputs_and_gradients(attend_with_all_scores, *arrays, options)
    found = outputs_and_gradients(gpu_attend, *arrays, options)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_bfloat16_differs_by_its_rounding():
    check_bfloat16(gpu_attend)


# Whether the kernel is used: in all layers, in those without a window, in none.
FAMILIES = {
    "gpt_j": {True},
    "llama": {True},
    "qwen3": {True},
    "general_llama": {True, False},
    "gemma2": {False},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_of_a_model_are_those_of_all_scores(family, monkeypatch):
    model = testing.tiny_causal_lm(family)
    rows = packed_rows()
    expected = hidden_and_gradients(model, rows, False)
    used = set()

    def applies(length, head_dim, dtype, sliding_window, soft_cap):
        # As if these heads were larger, in bfloat16, and on a GPU.
        found = gpu_kernel_applies(
            length, 64, "bfloat16", sliding_window, soft_cap, device=A100
        )
        used.add(found)
        return found

    monkeypatch.setattr(attention_kernels, "gpu_kernel_applies", applies)
    found = hidden_and_gradients(model, rows, family == "llama")
    assert used == FAMILIES[family]
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=2e-5 * scale)


def test_every_layout_of_a_mesh_computes_the_same():
    found = run_on_eight_devices("models_kernel_on_a_mesh", "gpu")
    assert found.pop("devices") == 8
    assert len(found) == 7
    for case, difference in found.items():
        assert difference < 2e-5, case


@pytest.mark.parametrize(("head_dim", "dtype"), ((64, "bfloat16"), (80, "float16")))
def test_kernels_for_cuda_have_no_array_of_all_scores(head_dim, dtype, monkeypatch):
    monkeypatch.setattr(gpu_attention, "first_device", lambda: A100)

    def loss(*arrays):
        return jnp.sum(gpu_attend(*arrays, scale=0.1).astype("float32"))

    keys = jax.ShapeDtypeStruct((2, 2, 1024, head_dim), dtype)
    query = jax.ShapeDtypeStruct((2, 2, 3, 1024, head_dim), dtype)
    ids = jax.ShapeDtypeStruct((2, 1024), "int32")
    kernel = "__gpu$xla.gpu.triton"
    exported = jax.export.export(
        jax.jit(jax.grad(loss, argnums=(0, 1, 2))),
        platforms=["cuda"],
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(kernel)],
    )(query, keys, keys, ids)
    program = exported.mlir_module()
    # Forward, what the backward needs of the outputs, backward.
    assert program.count(f"@{kernel}") == 3
    assert "1024x1024" not in program


def test_other_devices_and_arrays_attend_with_all_scores():
    applies = functools.partial(gpu_kernel_applies, device=A100)
    with flash_attention_disabled():
        assert not applies(1024, 64, "bfloat16")
    assert applies(1024, 64, jnp.dtype("bfloat16"))
    assert applies(1024, 128, "float16", sliding_window=1024)
    assert not gpu_kernel_applies(1024, 64, "bfloat16")  # no GPU here
    for device in (
        types.SimpleNamespace(platform="gpu", compute_capability="7.5"),
        types.SimpleNamespace(platform="gpu", compute_capability="gfx942"),
        types.SimpleNamespace(platform="tpu", device_kind="TPU v5 lite"),
    ):
        assert not gpu_kernel_applies(1024, 64, "bfloat16", device=device)
    assert not applies(1000, 64, "bfloat16")
    assert not applies(1024, 256, "bfloat16")
    assert not applies(1024, 8, "bfloat16")
    assert not applies(1024, 64, "float32")
    assert not applies(1024, 64, "bfloat16", sliding_window=1023)
    assert not applies(1024, 64, "bfloat16", soft_cap=50.0)
