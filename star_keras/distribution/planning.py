"""What a program needs and takes on TPUs that are not there.

libtpu compiles for any TPU topology on an x86-64 Linux machine. Programs are
lowered from shapes, so a model of any size takes no memory here.
"""

import dataclasses
import math
import os
import re

import jax
import keras

from star_keras.distribution.tpu_program import Cost, TpuProgram

# === Chips ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """What one device of a kind has, by its maker's figures.

    A device is what JAX calls so: a core of v3, else a chip.

    Args:
        memory: int. Bytes of HBM that the compiler lets a program have.
        flops: float. Peak FLOPs a second of bfloat16 matrix products.
        bandwidth: float. Bytes a second of HBM.
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
# Memory: what libtpu names when a program needs more; HBM itself is 32 GiB a
# chip (v3, v4, v6e), 16 (v5e) and 95 (v5p). Peak, bandwidth and links: the pages
# "TPU v3" to "TPU v6e" of https://cloud.google.com/tpu/docs; each of the two cores
# of a v3 chip has half of the first two. Links of v3 and v4, and their clocks:
# Jouppi et al., https://arxiv.org/abs/2304.01433, table 4. Other clocks: peak over
# twice the multipliers of a chip's matrix units.
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
# Google Cloud's names: of v3, v4 and v5p by cores, of the others by chips.
_CLOUD_NAMES = {
    "v3-8": "v3:2x2",
    "v3-32": "v3:4x4",
    "v4-8": "v4:2x2x1",
    "v4-16": "v4:2x2x2",
    "v4-32": "v4:2x2x4",
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5e-32": "v5e:4x8",
    "v5e-64": "v5e:8x8",
    "v5p-8": "v5p:2x2x1",
    "v5p-16": "v5p:2x2x2",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
    "v6e-16": "v6e:4x4",
}
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server is asked
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # without it a warning; any will do
    # Programs are compiled and never run, beside others if need be.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def tpu_devices(topology):
    """Devices of a TPU topology, to compile for and nothing else.

    Sets environment variables that libtpu reads, where they are unset.

    Args:
        topology: Google Cloud's name, e.g. `"v3-8"`, or a kind and its chips
            along each axis, e.g. `"v5e:2x4"`.

    Returns:
        A list of JAX devices, for `model_parallel(mesh, devices=...)`. On v4,
        where the two cores of a chip work as one, a device is a chip.

    Raises:
        ImportError: if libtpu is not installed.
        ValueError: if there is no such topology.
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
    options = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        devices = topologies.get_topology_desc(
            topology_name=name, platform="tpu", **options
        ).devices
    except jax.errors.JaxRuntimeError as error:
        if "lockfile" in str(error):
            raise
        raise ValueError(
            "Invalid value for argument `topology`. Expected one of "
            f"{list(_CLOUD_NAMES)}, or a kind and its chips along each axis like "
            f'"v5e:2x4". Received: topology={topology!r} ({error}).'
        ) from error
    return list(devices)


# === Shapes ===


def from_shapes(make):
    """Calls `make()` with every array in it a shape only.

    Returns:
        What it returned; Keras variables in it have shapes and no values.
    """
    made = []

    def trace():
        made.append(make())

    jax.eval_shape(trace)
    return made[0]


def variable_shapes(variables, distribution=None):
    """Shapes, dtypes and, under a distribution, shardings of variables.

    Args:
        variables: Keras variables, with values or without.
        distribution: Defaults to the one in force.

    Returns:
        A list of `jax.ShapeDtypeStruct`.
    """
    distribution = distribution or keras.distribution.distribution()

    def shape(variable):
        sharding = None
        if distribution is not None:
            sharding = distribution.get_variable_layout(variable).backend_layout
        return jax.ShapeDtypeStruct(variable.shape, variable.dtype, sharding=sharding)

    return [shape(variable) for variable in variables]


def lower_train_step(model, batch_size, length):
    """Lower the training step that `fit` runs under the distribution in force.

    Args:
        model: A compiled KerasHub causal LM, its optimizer built. See
            `from_shapes`.
        batch_size: int. Rows of a step on all devices.
        length: int. Tokens of a row.

    Returns:
        A `jax.stages.Lowered`.
    """
    state = tuple(
        variable_shapes(variables)
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    distribution = keras.distribution.distribution()
    rows = distribution.get_data_layout((batch_size, length)).backend_layout

    def array(dtype):
        return jax.ShapeDtypeStruct((batch_size, length), dtype, sharding=rows)

    names = [tensor.name for tensor in model.inputs]
    data = ({name: array("int32") for name in names}, array("int32"), array("float32"))
    # As Keras compiles it, see `JAXTrainer.make_train_function`.
    step = jax.jit(
        model.train_step,
        donate_argnums=0,
        out_shardings=(None, jax.tree.map(lambda leaf: leaf.sharding, state)),
    )
    return step.lower(state, data)


# === Plans ===


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """What a compiled program needs and takes on each device.

    Args:
        chip: `Chip`.
        fits: bool. Whether the compiler found room for the program.
        memory: dict. Bytes of a device by use: `"arguments"`, `"results"` that
            are not written over arguments, `"temporary"`, `"program"`. Where
            it does not fit there is `"total"` alone.
        cost: `Cost` of the program, each loop of unknown length counted once.
        rounds: dict of the `Cost` of one round of each such loop, by the
            operation it belongs to.
    """

    chip: Chip
    fits: bool
    memory: dict
    cost: Cost = dataclasses.field(default_factory=Cost)
    rounds: dict = dataclasses.field(default_factory=dict)


def plan(lowered, device):
    """Compile a program for TPUs and read what it needs and takes.

    Estimates are the compiler's own cycles of each operation, multiplied by
    the rounds of the loops around it, one after the other; what it gives no
    cycles (copies and collectives that run beside others) is not in it.

    Args:
        lowered: A `jax.stages.Lowered` for devices of `tpu_devices`.
        device: One of them.

    Returns:
        A `ProgramPlan`.

    Raises:
        ValueError: if nothing is known of the device's kind.
    """
    if device.device_kind not in CHIPS:
        raise ValueError(
            f"Invalid value for argument `device`. Expected one of {list(CHIPS)}. "
            f"Received: device.device_kind={device.device_kind!r}."
        )
    chip = CHIPS[device.device_kind]
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = _memory_asked(str(error))
        if needed is None:
            raise
        return ProgramPlan(chip=chip, fits=False, memory={"total": needed})
    analysis = compiled.memory_analysis()
    memory = {
        "arguments": analysis.argument_size_in_bytes,
        "results": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporary": analysis.temp_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }
    program = TpuProgram(compiled.as_text())
    return ProgramPlan(
        chip=chip, fits=True, memory=memory, cost=program.cost, rounds=program.rounds
    )


def _memory_asked(message):
    """Bytes that a program needs, by the compiler's refusal, or `None`."""
    found = re.search(r"(?:Used |memory required.*?\()([\d.]+)([KMGT]?)", message)
    if found is None or "RESOURCE_EXHAUSTED" not in message:
        return None
    unit = 2 ** (10 * " KMGT".index(found[2] or " "))
    return int(float(found[1]) * unit)


def device_bytes(shapes):
    """Bytes that arrays take on one device.

    Args:
        shapes: A tree of `jax.ShapeDtypeStruct`, sharded or not.
    """

    def size(leaf):
        shape = leaf.shape
        if leaf.sharding is not None:
            shape = leaf.sharding.shard_shape(shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(shapes)))
