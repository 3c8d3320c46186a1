"""Memory and time of one compiled program on absent TPUs."""

import dataclasses
import re

import jax

from star_keras.planning.chips import CHIPS, Chip
from star_keras.planning.tpu_program import Cost, TpuProgram


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """Memory and cost of a compiled program on each device.

    Args:
        chip: `Chip`. The kind of device.
        fits: bool. Whether the program fits in the memory of a device.
        memory: dict. Bytes of a device by use: `"arguments"`, `"results"`,
            `"temporary"` and `"program"`. Results written over arguments are not
            counted again. A program that does not fit has `"total"` alone.
        cost: `Cost` of the whole program. A loop of unknown length counts as one
            pass.
        loops: dict. `Cost` of one pass of each loop of unknown length, by the name
            of the operation.
    """

    chip: Chip
    fits: bool
    memory: dict
    cost: Cost = dataclasses.field(default_factory=Cost)
    loops: dict = dataclasses.field(default_factory=dict)


def plan(lowered, device):
    """Compile a program for TPUs and estimate its memory and cost.

    The estimate sums the compiler's own cycles of all operations, as if they ran
    one after the other. An operation in a loop counts once a pass. Operations
    without an estimate count no cycles, such as collectives that run beside other
    operations.

    Args:
        lowered: A `jax.stages.Lowered` for devices of `tpu_devices`.
        device: One of these devices.

    Returns:
        A `ProgramPlan`.

    Raises:
        ValueError: if the kind of the device is not in `CHIPS`.
        jax.errors.JaxRuntimeError: if the program does not compile for another
            reason than its memory.
    """
    if device.device_kind not in CHIPS:
        raise ValueError(
            "Invalid value for argument `device`. Expected one of the kinds "
            f"{list(CHIPS)}. Received: device.device_kind={device.device_kind!r}."
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
        chip=chip, fits=True, memory=memory, cost=program.cost, loops=program.loops
    )


def _memory_asked(message):
    """Bytes needed by a program, from an out-of-memory error; `None` for others."""
    found = re.search(r"(?:Used |memory required.*?\()([\d.]+)([KMGT]?)", message)
    if found is None or "RESOURCE_EXHAUSTED" not in message:
        return None
    unit = 2 ** (10 * " KMGT".index(found[2] or " "))
    return int(float(found[1]) * unit)
