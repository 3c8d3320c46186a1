import textwrap

import numpy as np
import pytest

from star_keras.planning.collectives import Collective
from star_keras.planning.tpu_program import TpuProgram

PROGRAM = """
HloModule jit_step, is_scheduled=true

%body (p: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %p = (s32[]{:T(256)}, bf16[8,4]{1,0:T(8,128)(2,1)}) parameter(0)
  %x = bf16[8,4]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %all-reduce = bf16[8,4]{1,0:T(8,128)(2,1)} all-reduce(%x), channel_id=1, replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add, metadata={op_name="scan/sum"}
  %y = bf16[8,4]{1,0} fusion(%all-reduce), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[], bf16[8,4]) tuple(%x, %y)
}

%condition (p: (s32[], bf16[8,4])) -> pred[] {
  %p = (s32[], bf16[8,4]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %constant = s32[]{:T(256)} constant(13)
  ROOT %lt = pred[] compare(%i, %constant), direction=LT
}

%until (p: (s32[], bf16[8,4])) -> pred[] {
  %p = (s32[], bf16[8,4]) parameter(0)
  ROOT %done = pred[] custom-call(%p), custom_call_target="x"
}

%fused (a: bf16[8,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  ROOT %multiply = bf16[8,4]{1,0} multiply(%a, %a), backend_config={"estimated_cycles":"7"}
}

%cheap (a: bf16[8,4]) -> bf16[8,4] {
  ROOT %a = bf16[8,4]{1,0} parameter(0)
}

%expensive (a: bf16[8,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  ROOT %n = bf16[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"1000"}
}

ENTRY %main.1_spmd (x: bf16[8,4], w: f32[2,4]) -> f32[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  %w = f32[2,4]{1,0} parameter(1)
  %while.1 = (s32[], bf16[8,4]) while(%t), condition=%condition, body=%body, metadata={op_name="scan"}
  %while.2 = (s32[], bf16[8,4]) while(%t), condition=%until, body=%body, metadata={op_name="decode"}
  %conditional = bf16[8,4]{1,0} conditional(%i, %x, %x), branch_computations={%cheap, %expensive}
  %all-gather-start = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%w), channel_id=2, replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={0}, metadata={op_name="weights"}
  %all-gather-done = f32[8,4]{1,0} all-gather-done(%all-gather-start)
  %reduce-scatter = f32[2,4]{1,0} reduce-scatter(%g), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add, metadata={op_name="gradients"}
  %small = f32[4]{0} all-reduce(%v), channel_id=5, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add, metadata={op_name="small"}
  %collective-permute-start = (bf16[2,4]{1,0}, bf16[2,4]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%part), channel_id=6, source_target_pairs={{0,1},{1,0}}, metadata={op_name="ring"}
  %collective-permute-done = bf16[2,4]{1,0} collective-permute-done(%collective-permute-start)
  ROOT %collective-permute = f32[8,4]{1,0} collective-permute(%all-gather-done), channel_id=4, source_target_pairs={{0,1},{1,0}}, metadata={op_name="shift"}
}
"""  # noqa: E501


# The compiler's reduce-scatter for a TPU v3.
SCATTERED = """
%all-reduce-scatter.1 (input.1: bf16[8,4]) -> bf16[2,4] {
  %input.1 = bf16[8,4]{1,0} parameter(0)
  %all-reduce.3 = bf16[8,4]{1,0} all-reduce(%input.1), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %dynamic-slice.1 = bf16[2,4]{1,0} dynamic-slice(%all-reduce.3, %i, %zero), dynamic_slice_sizes={2,4}
}

ENTRY %main.1_spmd (x: bf16[8,4]) -> bf16[2,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  ROOT %fusion.1 = bf16[2,4]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}
"""  # noqa: E501

# A loop over eight parts of a matrix, two in a pass.
UNROLLED = """
%body (p: (bf16[8,4], u32[])) -> (bf16[8,4], u32[]) {
  %p = (bf16[8,4]{1,0}, u32[]) parameter(0)
  %x = bf16[8,4]{1,0} get-tuple-element(%p), index=0
  %i = u32[] get-tuple-element(%p), index=1
  %one = u32[] constant(1)
  %y = bf16[8,4]{1,0} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"10"}
  %add.1 = u32[] add(%i, %one)
  %add.2 = u32[] add(%one, %add.1)
  ROOT %t = (bf16[8,4], u32[]) tuple(%y, /*index=1*/%add.2)
}

%condition (p: (bf16[8,4], u32[])) -> pred[] {
  %p = (bf16[8,4], u32[]) parameter(0)
  %i = u32[] get-tuple-element(%p), index=1
  %end = u32[] constant(8)
  ROOT %lt = pred[] compare(%i, %end), direction=LT
}

%fused (a: bf16[8,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  ROOT %multiply = bf16[8,4]{1,0} multiply(%a, %a)
}

ENTRY %main.1_spmd (x: bf16[8,4]) -> bf16[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  ROOT %while.1 = (bf16[8,4], u32[]) while(%x), condition=%condition, body=%body
}
"""  # noqa: E501

# An exchange beside a matrix product, as for a TPU v5e.
BESIDE = """
%start (input.1: bf16[2,4]) -> (bf16[2,4], bf16[8,4], u32[]) {
  %input.1 = bf16[2,4]{1,0} parameter(0)
  %all-gather.1 = bf16[8,4]{1,0} all-gather(%input.1), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.1 = (bf16[2,4], bf16[8,4], u32[]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (input.2: bf16[2,4]) -> (f32[8,8], bf16[8,4]) {
  %input.2 = bf16[2,4]{1,0} parameter(0)
  %convolution.1 = f32[8,8]{1,0} convolution(%input.2, %input.2), dim_labels=bf_io->bf
  %all-gather.2 = bf16[8,4]{1,0} all-gather(%input.2), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %tuple.1 = (f32[8,8], bf16[8,4]) tuple(%convolution.1, %all-gather.2)
}

%end (input.3: bf16[2,4]) -> bf16[8,4] {
  %input.3 = bf16[2,4]{1,0} parameter(0)
  %all-gather.3 = bf16[8,4]{1,0} all-gather(%input.3), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %custom-call.2 = bf16[8,4] custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main.1_spmd (x: bf16[2,4]) -> bf16[8,4] {
  %x = bf16[2,4]{1,0} parameter(0)
  %fusion.1 = (bf16[2,4], bf16[8,4], u32[]) fusion(%x), kind=kCustom, calls=%start
  %fusion.2 = (f32[8,8], bf16[8,4]) fusion(%x), kind=kOutput, calls=%async_collective_fusion.1, backend_config={"estimated_cycles":"50"}
  ROOT %fusion.3 = bf16[8,4]{1,0} fusion(%x), kind=kCustom, calls=%end
}
"""  # noqa: E501


# One of the gradients of two slices, summed within each and then between them.
SLICES = """
ENTRY %main.1_spmd (x: f32[256,256]) -> f32[32,8,128] {
  %x = f32[256,256]{1,0} parameter(0)
  %reduce-scatter.1 = f32[128,256]{1,0} reduce-scatter(%x), channel_id=1, replica_groups={{0,2},{1,3}}, dimensions={0}, to_apply=%add
  %send = (f32[32,8,128]{2,1,0:T(8,128)}, u32[], token[]) send(%bitcast, %after-all), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[32,8,128]{2,1,0:T(8,128)}, u32[], token[]) recv(%after-all), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send-done = token[] send-done(%send), channel_id=2, is_host_transfer=true
  ROOT %recv-done = (f32[32,8,128]{2,1,0:T(8,128)}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
}
"""  # noqa: E501


@pytest.fixture
def program():
    return TpuProgram(textwrap.dedent(PROGRAM))


def test_a_loop_counts_once_a_pass_and_of_branches_the_most_expensive_counts(program):
    # 13 passes, one of the loop of unknown length, and the expensive branch.
    assert program.cost.cycles == 14 * 100 + 1000


def test_a_loop_of_unknown_length_has_the_cost_of_one_pass(program):
    assert list(program.loops) == ["decode"]
    assert program.loops["decode"].cycles == 100
    assert sum(program.loops["decode"].collectives.values()) == 1


def test_collectives_have_their_bytes_groups_and_times(program):
    def collective(kind, elements, size, source):
        return Collective(
            kind=kind, elements=elements, size=size, group=4, source=source
        )

    gathered = collective("all-gather", 32, 128, "weights")
    scattered = collective("reduce-scatter", 8, 128, "gradients")
    reduced = collective("all-reduce", 32, 64, "scan/sum")
    (shifted,) = (c for c in program.cost.collectives if c.source == "shift")
    (ring,) = (c for c in program.cost.collectives if c.source == "ring")
    assert (ring.elements, ring.size, ring.moved) == (8, 16, 16)
    assert program.cost.collectives == {
        reduced: 14,
        gathered: 1,
        scattered: 1,
        collective("all-reduce", 4, 16, "small"): 1,
        shifted: 1,
        ring: 1,
    }


def test_a_sum_of_which_a_share_is_kept_is_a_reduce_scatter():
    (found,) = TpuProgram(SCATTERED).cost.collectives
    assert (found.kind, found.elements, found.size) == ("reduce-scatter", 8, 64)
    assert found.moved == 64 * 3 / 4


def test_an_unrolled_loop_has_fewer_passes():
    assert TpuProgram(UNROLLED).cost.cycles == 4 * 10
    once = UNROLLED.replace("add(%one, %add.1)", "copy(%add.1)")
    assert TpuProgram(once).cost.cycles == 8 * 10


def test_an_exchange_beside_other_work_counts_once():
    cost = TpuProgram(BESIDE).cost
    ((found, times),) = cost.collectives.items()
    assert (found.kind, found.size, times) == ("all-gather", 64, 1)
    assert cost.cycles == 50


def test_an_exchange_between_slices_counts_apart_from_the_interconnect():
    found = {c.kind: c for c in TpuProgram(SLICES).cost.collectives}
    assert found.keys() == {"reduce-scatter", "between slices"}
    between = found["between slices"]
    assert (between.elements, between.size) == (32 * 8 * 128, 4 * 32 * 8 * 128)
    assert between.moved == 0
    assert found["reduce-scatter"].moved == 4 * 128 * 256


def bytes_sent_in_a_ring(devices, held, part_to_send):
    """Bytes sent by a device; every turn each sends a part to the next.

    Args:
        devices: int. Length of the ring.
        held: The parts of each device, a list of dicts. Changed in place: a device
            adds an arriving part to its own part, or keeps it if it has none.
        part_to_send: Callable `(turn, device) -> key`.
    """
    sent = 0
    for turn in range(devices - 1):
        keys = [part_to_send(turn, device) for device in range(devices)]
        parts = [held[device][key] for device, key in enumerate(keys)]
        sent += parts[0].nbytes
        for device, (key, part) in enumerate(zip(keys, parts, strict=True)):
            receiver = held[(device + 1) % devices]
            receiver[key] = part + receiver.get(key, 0)
    return sent


@pytest.mark.parametrize("devices", (2, 4, 8))
def test_bytes_that_a_collective_moves_are_those_of_a_ring(devices):
    """Rings of numpy arrays, which send a part a turn to the next device."""
    rng = np.random.default_rng(0)
    arrays = rng.integers(9, size=(devices, devices, 16))  # device, part, number
    total = arrays.sum(0)

    def moved(kind):
        return Collective(
            kind=kind,
            elements=total.size,
            size=total.nbytes,
            group=devices,
            source="ring",
        ).moved

    held = [dict(enumerate(parts)) for parts in arrays]
    scattered = bytes_sent_in_a_ring(
        devices, held, lambda turn, device: (device - turn) % devices
    )
    own = [(device + 1) % devices for device in range(devices)]
    for device, key in enumerate(own):
        np.testing.assert_array_equal(held[device][key], total[key])
    assert moved("reduce-scatter") == scattered

    held = [{key: total[key]} for key in own]
    gathered = bytes_sent_in_a_ring(
        devices, held, lambda turn, device: (own[device] - turn) % devices
    )
    for parts in held:
        np.testing.assert_array_equal([parts[i] for i in range(devices)], total)
    assert moved("all-gather") == gathered
    assert moved("all-reduce") == scattered + gathered


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="Expected the HLO of a compiled program"):
        TpuProgram("nothing")


def splash(name, grid, shape):
    """The program of one kernel; `grid` and `shape` are of its blocks and its query."""
    return textwrap.dedent(
        f"""
        ENTRY %main (x: bf16[2]) -> bf16[2] {{
          ROOT %{name}.1 = bf16[{shape}]{{3,2,1,0}} custom-call(%x), custom_call_target="tpu_custom_call", operand_layout_constraints={{s8[1,{grid}]{{2,1,0}}, bf16[{shape}]{{3,2,1,0}}, s32[2,64]{{1,0}}}}, frontend_attributes={{a={{}}}}
        }}
        """  # noqa: E501
    )


@pytest.mark.parametrize(
    ("name", "grid", "shape", "rows", "pairs", "products"),
    [
        # 10 of 16 blocks of 512: causal.
        ("splash_mha_fwd_segmented_residuals", "4,4", "2,8,2048,64", 2, 10 * 512**2, 2),
        # A single row on each device.
        ("splash_mha_fwd_segmented_residuals", "4,4", "8,2048,64", 1, 10 * 512**2, 2),
        # Two blocks of 512 for each of 8: a window.
        ("splash_mha_dq_segmented", "8,2", "2,8,4096,64", 2, 16 * 512**2, 3),
        ("splash_mha_dkv_segmented", "2,8", "2,8,4096,64", 2, 16 * 512**2, 4),
    ],
)
def test_work_of_attention_kernels_is_that_of_their_blocks(
    name, grid, shape, rows, pairs, products
):
    program = TpuProgram(splash(name, grid, shape))
    assert program.cost.kernel_flops == products * 2 * rows * 8 * pairs * 64
    assert program.cost.cycles == 0
