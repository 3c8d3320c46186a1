import os
import pathlib
import subprocess
import sys

import pytest

from star_keras.utils.quiet import without_log_noise
from tests.conftest import ROOT


def test_log_noise_goes_and_everything_else_stays(capfd):
    with pytest.raises(ValueError, match="mine"), without_log_noise():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is\n")
        os.write(2, b"I0000 00:00:1795705456.624706  2969 port.cc:153] oneDNN\n")
        os.write(2, b"E0000 00:00:1795705456.624706  2969 an error\n")
        print("a warning of Python", file=sys.stderr)
        raise ValueError("mine")
    assert set(capfd.readouterr().err.splitlines()) == {
        "E0000 00:00:1795705456.624706  2969 an error",
        "a warning of Python",
    }


def test_a_closed_standard_error_stays_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with without_log_noise():
        pass


@pytest.mark.parametrize("given", ["", "tpu"])
def test_jax_is_told_of_no_accelerator_only_where_nothing_is_said(given):
    pytest.importorskip("libtpu")
    if any(
        pathlib.Path("/dev", name).exists() for name in ("accel0", "nvidia0", "kfd")
    ):
        pytest.skip("there is an accelerator")
    environment = {k: v for k, v in os.environ.items() if k != "JAX_PLATFORMS"}
    if given:
        environment["JAX_PLATFORMS"] = given
    program = (
        "import os; from star_keras.utils.quiet import skip_absent_tpu; "
        "skip_absent_tpu(); print(os.environ['JAX_PLATFORMS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == (given or "cpu"), done.stderr
