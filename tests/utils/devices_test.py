import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from star_keras.utils.devices import describe_devices, found_devices
from tests.conftest import ROOT


@pytest.mark.parametrize("platform", ["cuda", "rocm", "moon"])
def test_a_platform_that_is_not_there_is_named(platform):
    """In a process of its own, since JAX chooses its platform once."""
    if any(pathlib.Path("/dev", name).exists() for name in ("nvidia0", "kfd")):
        pytest.skip("there is a GPU")
    program = "from star_keras.utils.devices import found_devices; found_devices()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: Invalid value for the environment variable")
    assert f"Received: JAX_PLATFORMS={platform!r}." in last
    assert "star-keras[cuda]" in last


def test_devices_are_counted_with_their_platform_and_kind():
    assert found_devices() == jax.devices()
    one, kind = jax.devices()[:1], jax.devices()[0].device_kind
    text = "1 cpu device" if kind == "cpu" else f"1 {one[0].platform} device ({kind})"
    assert describe_devices(one) == text
    chip = SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    assert describe_devices([chip] * 8) == "8 tpu devices (TPU v5 lite)"
