"""Libraries that start without log lines about devices that are not there."""

import contextlib
import importlib.util
import os
import pathlib
import re
import sys
import tempfile

# Devices of accelerators in /dev: TPUs, and GPUs of NVIDIA, WSL and AMD.
_DEVICES = ("accel*", "vfio/[0-9]*", "nvidia[0-9]*", "dxg", "kfd")
_GOOGLE = "0x1ae0"  # PCI vendor of TPUs
# Information and warnings of C++ libraries that have no logger yet.
_NOISE = re.compile(
    rb"WARNING: (All log messages before absl|Logging before InitGoogle)"
    rb"|[IW]\d{4} \d\d:\d\d:\d\d\.|[IW]0000 00:00:\d+\."
)


def skip_absent_tpu():
    """Let JAX start on the CPU where libtpu is installed without a TPU.

    JAX would try the TPU first and print a page of errors. Sets the environment
    variable `JAX_PLATFORMS`, unless it is set or there is an accelerator. Call
    it before JAX is used.
    """
    if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
        return
    devices = pathlib.Path("/dev")
    vendors = pathlib.Path("/sys/bus/pci/devices").glob("*/vendor")
    if not any(any(devices.glob(pattern)) for pattern in _DEVICES) and not any(
        path.read_text().strip() == _GOOGLE for path in vendors
    ):
        os.environ["JAX_PLATFORMS"] = "cpu"


@contextlib.contextmanager
def without_log_noise():
    """A context that drops information and warnings of C++ libraries.

    TensorFlow prints them when it is imported, past every setting. All other
    lines of standard error come when the context ends.
    """
    if sys.stderr is None:  # closed by the shell
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        standard_error = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(standard_error, 2)
            os.close(standard_error)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    os.write(2, line)
