"""Cycles and collectives, read from the text of a program compiled for TPUs."""

import collections
import dataclasses
import math
import re

from star_keras.planning.collectives import (
    ARRAY,
    KINDS,
    read_between_slices,
    read_collective,
    scattered,
    source_of,
)
from star_keras.utils.errors import invalid

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$")
_CALLED = re.compile(r"\b(?:calls|to_apply|called_computations)=\{?%([\w.-]+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ASYNC_START = 'custom_call_target="AsyncCollectiveStart"'
_ASYNC_CHAIN = 'chain_id="'
_INDEX = re.compile(r"\bindex=(\d+)")
_NAME = re.compile(r"%([\w.-]+)")
_SPLASH = re.compile(r"splash_mha_(fwd|dq|dkv)")
# Matrix products of a block of queries and a block of keys.
_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}
_OPERANDS = re.compile(r"operand_layout_constraints=\{(.*?\})\}")


@dataclasses.dataclass
class Cost:
    """Cost of a program, or of one pass of a loop, on one device.

    Args:
        cycles: float. The compiler's estimate.
        kernel_flops: float. FLOPs of attention kernels, which it does not look into.
        collectives: `collections.Counter`. How often each `Collective` runs.
    """

    cycles: float = 0.0
    kernel_flops: float = 0.0
    collectives: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )

    def add(self, other, times=1):
        """Add another cost.

        Args:
            other: `Cost`.
            times: int. How often to add it. Defaults to `1`.
        """
        self.cycles += times * other.cycles
        self.kernel_flops += times * other.kernel_flops
        for collective, count in other.collectives.items():
            self.collectives[collective] += times * count


class TpuProgram:
    """The cost of a compiled program, read from its text.

    A loop with a known number of passes counts that often. A loop of unknown length
    counts as one pass. Of conditional branches the most expensive one counts.
    Operations without an estimate count no cycles: collectives and scalar
    bookkeeping. Of the kernels of splash attention the FLOPs are counted.

    Args:
        text: string. HLO of an executable, from `compiled.as_text()`.

    Attributes:
        cost: `Cost` of the whole program.
        loops: dict. `Cost` of one pass of each loop of unknown length, by the name
            of the operation.

    Raises:
        ValueError: if the text is not the HLO of a program, or has replica groups
            in an unknown notation.
    """

    def __init__(self, text):
        self._computations = {}
        entry = None
        for line in text.splitlines():
            if header := _HEADER.match(line):
                body = self._computations.setdefault(header[2], [])
                entry = header[2] if header[1] else entry
            elif instruction := _INSTRUCTION.match(line):
                body.append(instruction.groups())
        if entry is None:
            raise invalid("text", "the HLO of a compiled program", text[:80])
        self._costs = {}
        self.loops = {}
        self.cost = self._cost(entry)

    def _cost(self, name):
        if name not in self._costs:
            cost = Cost()
            body = self._computations[name]
            # An exchange beside other work is written where it starts, in each fusion
            # that it goes on in, and where it ends.
            started = {
                operand
                for *_, rest in body
                if _ASYNC_START in rest
                for operand in _NAME.findall(_first(rest))
            }
            for instruction in body:
                if _ASYNC_CHAIN not in instruction[-1] or instruction[0] in started:
                    cost.add(self._instruction_cost(*instruction))
            if name.startswith("all-reduce-scatter"):
                cost.collectives = scattered(cost.collectives)
            self._costs[name] = cost
        return self._costs[name]

    def _instruction_cost(self, name, shape, opcode, rest):
        cost = Cost()
        if opcode == "while":
            condition = re.search(r"condition=%([\w.-]+)", rest)[1]
            name_of_body = re.search(r"body=%([\w.-]+)", rest)[1]
            body = self._cost(name_of_body)
            trips = self._trips(condition, name_of_body)
            if trips is None:
                self.loops[source_of(rest) or name] = body
            cost.add(body, trips or 1)
            return cost
        if opcode == "conditional":
            names = re.search(r"branch_computations=\{(.*?)\}", rest)
            names = (
                names[1]
                if names
                else " ".join(
                    re.findall(r"(?:true|false)_computation=(%[\w.-]+)", rest)
                )
            )
            branches = map(self._cost, re.findall(r"%([\w.-]+)", names))
            return max(branches, key=lambda branch: branch.cycles)
        if cycles := _CYCLES.search(rest):
            cost.cycles = float(cycles[1])
        kind = opcode.removesuffix("-start")
        if kind in KINDS:
            cost.collectives[read_collective(opcode, shape, rest)] += 1
        elif opcode == "send" and "_xla_megascale_transfer_type" in rest:
            cost.collectives[read_between_slices(shape, rest)] += 1
        elif opcode in ("fusion", "call", "async-start"):
            for called in _CALLED.findall(rest):
                called = self._cost(called)
                # A fusion has one estimate for all of its operations.
                if cost.cycles:
                    called = dataclasses.replace(called, cycles=0.0)
                cost.add(called)
        elif opcode == "custom-call" and (kernel := _SPLASH.match(name)):
            cost.kernel_flops = _splash_flops(kernel[1], rest)
        return cost

    def _trips(self, condition, body):
        """Passes of a loop that counts from 0 to a constant; `None` for others."""
        *_, (_, _, opcode, rest) = self._computations[condition]
        compared = self._computations[condition]
        if opcode == "fusion":
            compared = self._computations[_CALLED.search(rest)[1]]
            _, _, opcode, rest = compared[-1]
        if opcode != "compare" or "direction=LT" not in rest:
            return None
        ends = [
            int(_first(rest)) for _, _, opcode, rest in compared if opcode == "constant"
        ]
        counters = [
            int(_INDEX.search(rest)[1])
            for _, _, opcode, rest in self._computations[condition]
            if opcode == "get-tuple-element"
        ]
        if len(ends) != 1:
            return None
        # An unrolled loop counts by more than one.
        step = self._step(body, counters[0]) if len(counters) == 1 else 1
        return -(-ends[0] // step)

    def _step(self, body, counter):
        """What a pass adds to an element of the loop's tuple; 1 if it is not known."""
        written = {
            name: (opcode, rest) for name, _, opcode, rest in self._computations[body]
        }
        opcode, rest = written[self._computations[body][-1][0]]
        names = _NAME.findall(_first(rest)) if opcode == "tuple" else []
        name, step = names[counter] if counter < len(names) else None, 0
        while name in written:
            opcode, rest = written[name]
            if opcode == "get-tuple-element" and _INDEX.search(rest)[1] == str(counter):
                return step or 1
            name = None
            if opcode in ("add", "copy", "bitcast"):
                for operand in _NAME.findall(_first(rest)):
                    kind, value = written.get(operand, ("", ""))
                    if kind == "constant":
                        step += int(_first(value))
                    else:
                        name = operand
        return 1


def _first(rest):
    """The operands of an instruction, of what follows its opcode."""
    return rest.partition(")")[0]


def _splash_flops(kernel, rest):
    """FLOPs of the blocks that a kernel of splash attention does not skip."""
    operands = [
        (dtype, [int(n) for n in axes.split(",") if n])
        for dtype, axes in ARRAY.findall(_OPERANDS.search(rest)[1])
    ]
    # The grid of blocks comes first. Rows, heads, length, head size are the query's,
    # the first operand of floats. A single row has no axis.
    short, long = sorted(operands[0][1][-2:])
    *rows, heads, length, head_dim = next(x for dtype, x in operands if "f" in dtype)
    # A window makes a narrow band of the grid, while causality skips half of it.
    blocks = short * long if short < long else long * (long + 1) / 2
    pairs = math.prod(rows) * heads * blocks * (length / long) ** 2
    return 2 * _PRODUCTS[kernel] * pairs * head_dim
