"""Settings that fit and take least time, found by arithmetic, without compiling."""

import dataclasses
import itertools

from star_keras.distribution import parse_mesh
from star_keras.planning.arithmetic import Arithmetic, Iteration, Weights
from star_keras.planning.chips import Chip
from star_keras.utils.errors import invalid

# Share of the memory that candidates may take. The rest is for programs, and for
# temporary arrays that the arithmetic does not know.
SHARE_OF_MEMORY = 0.9


class NothingFitsError(ValueError):
    """No settings fit in the memory of the devices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """Settings of a run, and the memory and time that arithmetic finds for them.

    Attributes:
        mesh: string, e.g. `"batch:2,model:4"`.
        zero: bool. See `model_parallel`.
        checkpointing: bool. `gradient_checkpointing`.
        parts: int. `gradient_accumulation_steps`.
        slots: int. `sample_batch_size`.
        train_memory: dict. Bytes of a device in a training step, by use.
        sample_memory: dict. Bytes of a device while sampling, by use.
        step_seconds: float. A training step.
        prefill_seconds: float. The prefill of one prompt.
        token_seconds: float. A decoding step of all slots.
    """

    mesh: str
    zero: bool
    checkpointing: bool
    parts: int
    slots: int
    train_memory: dict
    sample_memory: dict
    step_seconds: float
    prefill_seconds: float
    token_seconds: float

    @property
    def needed(self):
        """int. Bytes of a device: of training or sampling, whichever takes more."""
        return max(sum(self.train_memory.values()), sum(self.sample_memory.values()))

    @property
    def flags(self):
        """dict. The flags of `experiments.star`."""
        return {
            "mesh": self.mesh,
            "zero": self.zero,
            "gradient_checkpointing": self.checkpointing,
            "gradient_accumulation_steps": self.parts,
            "sample_batch_size": self.slots,
        }

    def seconds(self, iteration: Iteration) -> float:
        """Seconds of an iteration, sampling and training."""
        fills = -(-iteration.completions // self.slots)
        return (
            iteration.steps * self.step_seconds
            + iteration.completions * self.prefill_seconds
            + fills * iteration.max_new_tokens * self.token_seconds
        )


def candidates(
    model, chip: Chip, num_devices: int, iteration: Iteration, *, splash: bool
) -> list[Candidate]:
    """Settings that fit, the fastest first. Ties go to the least memory.

    All meshes of the devices that divide the model and the batch, with ZeRO and
    without, on TPUs with gradient checkpointing and without.

    Args:
        model: A compiled `PackedCausalLM`, with values or without.
        chip: The kind of device.
        num_devices: Number of devices.
        iteration: The work to be done.
        splash: Whether packed rows go through splash attention.

    Returns:
        A list of `Candidate`, never empty.

    Raises:
        ValueError: if no mesh divides the model and the batch.
        NothingFitsError: if none of the settings fits.
    """
    sizes = Arithmetic(model, chip, iteration, splash)
    checkpointing = (True,) if sizes.on_gpu else (True, False)
    found, reasons = [], []
    for split in _divisors(num_devices):
        batch = num_devices // split
        for zero in (False, True) if batch > 1 else (False,):
            mesh = f"batch:{batch},model:{split}"
            try:
                weights = Weights(model, mesh, zero, num_devices)
            except ValueError as error:
                reasons.append(f"{mesh}: {error}")
                continue
            if iteration.batch_size % batch:
                reasons.append(
                    f"{mesh}: batch_size={iteration.batch_size} does not divide by "
                    f"{batch}."
                )
                continue
            parts = _divisors(iteration.batch_size // batch)
            slots = numbers_of_slots(batch, iteration.completions)
            found += [
                _candidate(sizes, weights, mesh, zero, *settings)
                for settings in itertools.product(checkpointing, parts, slots)
            ]
    if not found:
        raise invalid(
            "num_devices",
            "a number with a mesh that divides the model and batch_size",
            num_devices,
            " ".join(reasons),
        )
    limit = SHARE_OF_MEMORY * chip.memory
    fitting = [x for x in found if x.needed <= limit]
    if not fitting:
        least = min(found, key=lambda x: x.needed)
        raise NothingFitsError(
            f"Nothing fits: the smallest need is {least.needed / 2**30:.2f} GiB a "
            f"device, with {least.flags}, of {limit / 2**30:.2f} GiB "
            f"({SHARE_OF_MEMORY:.0%} of a device). Use more devices, a shorter "
            "--sequence_length or --max_new_tokens, or --lora_rank."
        )
    return sorted(fitting, key=lambda x: (x.seconds(iteration), x.needed))


def numbers_of_slots(batch: int, completions: int) -> list[int]:
    """Numbers of slots to try: completions fill them 1, 2, 3, 4, 6, 8, 12, ... times.

    Args:
        batch: Devices that share the slots.
        completions: Completions of an iteration. More slots would be empty.

    Returns:
        Multiples of `batch`, from one slot a device to slots for all completions.

    Example:
    ```python
    numbers_of_slots(4, 41)  # [4, 8, 12, 16, 24, 44]
    ```
    """
    each = max(1, -(-completions // batch))
    fills = {m * 2**n for n in range(each.bit_length()) for m in (2, 3)}
    return sorted({batch * -(-each // times) for times in (1, *fills)})


def _divisors(number):
    return [n for n in range(1, number + 1) if number % n == 0]


def _candidate(sizes, weights, mesh, zero, checkpointing, parts, slots):
    place = weights, *parse_mesh(mesh).values()
    prefill, token = sizes.sample_seconds(*place, slots)
    return Candidate(
        mesh=mesh,
        zero=zero,
        checkpointing=checkpointing,
        parts=parts,
        slots=slots,
        train_memory=sizes.train_memory(*place, checkpointing, parts),
        sample_memory=sizes.sample_memory(*place, slots),
        step_seconds=sizes.step_seconds(*place, zero, checkpointing, parts),
        prefill_seconds=prefill,
        token_seconds=token,
    )
