"""TPU chips and their topologies, and GPUs.

libtpu compiles for any TPU topology on an x86-64 Linux machine without a TPU.
"""

import dataclasses
import os

import jax

from star_keras.utils.errors import invalid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """Data sheet of a device.

    A device is a core of TPU v3, and a chip of every other kind, as in JAX.

    Args:
        memory: int. Bytes of HBM that a program may use.
        flops: float. Peak FLOPs a second of bfloat16 matrix products.
        bandwidth: float. Bytes a second to and from HBM.
        link_bandwidth: float. Bytes a second that a device sends along one
            axis of the interconnect, both directions together.
        clock: float. Cycles a second.
    """

    memory: int
    flops: float
    bandwidth: float
    link_bandwidth: float
    clock: float


_GIB = 2**30
# Memory: the limit in libtpu's out-of-memory errors. HBM itself is 32 GiB a chip
# (v3, v4, v6e), 16 (v5e) and 95 (v5p).
# Peak, bandwidth and links: the pages "TPU v3" to "TPU v6e" of
# https://cloud.google.com/tpu/docs. Each of the two cores of a v3 chip has half of
# the chip's peak and bandwidth.
# Links and clocks of v3 and v4: Jouppi et al., https://arxiv.org/abs/2304.01433,
# table 4. Other clocks: peak over twice the multipliers of a chip's matrix units.
CHIPS = {
    "TPU v3": Chip(
        memory=int(15.48 * _GIB),
        flops=61.5e12,
        bandwidth=450e9,
        link_bandwidth=140e9,
        clock=0.94e9,
    ),
    "TPU v4": Chip(
        memory=int(30.75 * _GIB),
        flops=275e12,
        bandwidth=1228e9,
        link_bandwidth=100e9,
        clock=1.05e9,
    ),
    "TPU v5 lite": Chip(
        memory=int(15.75 * _GIB),
        flops=197e12,
        bandwidth=819e9,
        link_bandwidth=100e9,
        clock=1.50e9,
    ),
    "TPU v5": Chip(
        memory=int(95.74 * _GIB),
        flops=459e12,
        bandwidth=2765e9,
        link_bandwidth=200e9,
        clock=1.75e9,
    ),
    "TPU v6 lite": Chip(
        memory=int(31.25 * _GIB),
        flops=918e12,
        bandwidth=1640e9,
        link_bandwidth=200e9,
        clock=1.75e9,
    ),
}
# One GPU, for arithmetic alone: there is no compiler for absent GPUs here. JAX takes
# 75% of the memory unless XLA_CLIENT_MEM_FRACTION says otherwise:
# https://docs.jax.dev/en/latest/gpu_memory_allocation.html.
# Peak (without sparsity), bandwidth and memory: of the SXM kind, from
# https://www.nvidia.com/en-us/data-center/h100/, and of the RTX 4090, from the white
# paper "NVIDIA Ada GPU Architecture", appendix A. Clocks: peak over the tensor cores,
# 528 of 1,024 FLOPs and 512 of 128. Links are not used by one GPU.
GPUS = {
    "rtx4090-24gb": Chip(
        memory=int(0.75 * 24e9),
        flops=165e12,
        bandwidth=1008e9,
        link_bandwidth=32e9,
        clock=2.52e9,
    ),
    "h100-80gb": Chip(
        memory=int(0.75 * 80e9),
        flops=989e12,
        bandwidth=3350e9,
        link_bandwidth=900e9,
        clock=1.83e9,
    ),
}
# Names of Google Cloud. They count cores of v3, v4 and v5p, and chips of the others.
_CLOUD_NAMES = {
    "v3-8": "v3:2x2",
    "v3-32": "v3:4x4",
    "v3-128": "v3:8x8",
    "v4-8": "v4:2x2x1",
    "v4-16": "v4:2x2x2",
    "v4-32": "v4:2x2x4",
    "v4-128": "v4:4x4x4",
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5e-32": "v5e:4x8",
    "v5e-64": "v5e:8x8",
    "v5e-256": "v5e:16x16",
    "v5p-8": "v5p:2x2x1",
    "v5p-16": "v5p:2x2x2",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
    "v6e-16": "v6e:4x4",
    "v6e-64": "v6e:8x8",
    "v6e-256": "v6e:16x16",
}
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # any value; libtpu warns without one
    # Programs are only compiled, so several processes may do so at once.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def tpu_devices(topology, num_slices=1):
    """The devices of a TPU topology. Programs can be compiled for them, not run.

    Sets libtpu's environment variables, except those already set.

    Args:
        topology: string. Name of Google Cloud, e.g. `"v3-8"`, or a kind and its
            chips along each axis, e.g. `"v5e:2x4"`.
        num_slices: int. Number of slices of this topology, which the network of the
            data center connects. Defaults to `1`.

    Returns:
        A list of JAX devices, for `model_parallel(mesh, devices=...)`.

    Raises:
        ImportError: if libtpu is not installed.
        ValueError: if there is no such topology.
        jax.errors.JaxRuntimeError: if another process holds libtpu's lock file.
    """
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Compiling for TPUs needs libtpu (Linux, x86-64). Install it with "
            '`pip install "star-keras[tpu-plan]"`.'
        ) from error
    from jax.experimental import topologies

    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    name = _CLOUD_NAMES.get(topology, topology)
    # The two cores of a v4 chip work as one device.
    options = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        devices = topologies.get_topology_desc(
            topology_name=name, platform="tpu", num_slices=num_slices, **options
        ).devices
    except jax.errors.JaxRuntimeError as error:
        if "lockfile" in str(error):
            raise
        raise invalid(
            "topology",
            f"one of {list(_CLOUD_NAMES)}, or a kind and its chips along each axis "
            'like "v5e:2x4"',
            topology,
            f"libtpu says: {error}",
        ) from error
    return list(devices)
