"""Exchanges between devices, read from instructions of a program compiled for TPUs."""

import collections
import dataclasses
import math
import re

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# Type and axes of an array, e.g. "bf16[8,4]".
ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """An exchange between devices.

    Args:
        kind: string, e.g. `"all-reduce"`; `"between slices"` of any kind between
            several slices.
        elements: int. Number of elements of its largest array, on one device.
        size: int. Bytes on one device: of the output, or of the input of a
            reduce-scatter.
        group: int. Number of devices in one group of the exchange.
        source: string. Name of the operation in the JAX program.
    """

    kind: str
    elements: int
    size: int
    group: int
    source: str

    @property
    def moved(self):
        """float. Bytes that each device sends to its neighbor in a ring.

        An exchange between slices goes another way and counts 0.
        """
        if self.kind == "collective-permute":
            return float(self.size)
        # An all-reduce is a reduce-scatter and then an all-gather.
        turns = 2 if self.kind == "all-reduce" else 1
        return turns * self.size * (self.group - 1) / self.group


def scattered(collectives):
    """Collectives of a fusion that sums arrays and keeps a share of each sum.

    It is how the compiler writes a reduce-scatter.
    """
    counter = collections.Counter()
    for c, times in collectives.items():
        elements = c.elements // c.group
        c = dataclasses.replace(c, kind="reduce-scatter", elements=elements)
        counter[c] += times
    return counter


def read_collective(opcode, shape, rest):
    """The `Collective` of an instruction `name = shape opcode(rest`."""
    kind = opcode.removesuffix("-start")
    arrays = [
        (math.prod(int(n) for n in axes.split(",") if n), dtype)
        for dtype, axes in ARRAY.findall(shape)
    ]
    if opcode in ("all-gather-start", "collective-permute-start"):
        # Inputs come first, then outputs, then scalars of the compiler.
        arrays = [x for x in arrays if x[0] > 1] or arrays
        arrays = arrays[len(arrays) // 2 :]
    group = _group_size(rest)
    size = sum(elements * _item_size(dtype) for elements, dtype in arrays)
    return Collective(
        kind=kind,
        elements=max(elements for elements, _ in arrays),
        size=size * group if kind == "reduce-scatter" else size,
        group=group,
        source=source_of(rest),
    )


def read_between_slices(shape, rest):
    """A share of an exchange between slices, which the hosts carry out.

    The compiler splits such an exchange into one within each slice and one between
    the slices. The latter takes nothing of the interconnect: its group is 1.
    """
    dtype, axes = ARRAY.search(shape).groups()
    elements = math.prod(int(n) for n in axes.split(",") if n)
    return Collective(
        kind="between slices",
        elements=elements,
        size=elements * _item_size(dtype),
        group=1,
        source=source_of(rest),
    )


def _item_size(dtype):
    """Bytes, e.g. 2 of `"bf16"`."""
    if dtype == "pred":
        return 1
    bits = re.search(r"\d+", dtype)
    return -(-int(bits[0]) // 8) if bits else 0


def _group_size(rest):
    """Number of devices in a replica group, in any of its three notations."""
    if "replica_groups=" not in rest:
        return 1
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        # The notation of a part of an axis is 'axis':(devices before it)size.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(size or sizes[name]) for name, size in axes)
    if groups := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(groups[1])
    if groups := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return groups[1].count(",") + 1
    raise ValueError(f"Unknown notation of replica groups in: {rest[:200]!r}")


def source_of(rest):
    found = re.search(r'op_name="(.*?)"', rest)
    return found[1] if found else ""
