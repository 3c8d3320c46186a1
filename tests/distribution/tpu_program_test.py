import textwrap

import pytest

from star_keras.distribution.tpu_program import Collective, TpuProgram

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

%dear (a: bf16[8,4]) -> bf16[8,4] {
  %a = bf16[8,4]{1,0} parameter(0)
  ROOT %n = bf16[8,4]{1,0} fusion(%a), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"1000"}
}

ENTRY %main.1_spmd (x: bf16[8,4], w: f32[2,4]) -> f32[8,4] {
  %x = bf16[8,4]{1,0} parameter(0)
  %w = f32[2,4]{1,0} parameter(1)
  %while.1 = (s32[], bf16[8,4]) while(%t), condition=%condition, body=%body, metadata={op_name="scan"}
  %while.2 = (s32[], bf16[8,4]) while(%t), condition=%until, body=%body, metadata={op_name="decode"}
  %conditional = bf16[8,4]{1,0} conditional(%i, %x, %x), branch_computations={%cheap, %dear}
  %all-gather-start = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%w), channel_id=2, replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={0}, metadata={op_name="weights"}
  %all-gather-done = f32[8,4]{1,0} all-gather-done(%all-gather-start)
  %reduce-scatter = f32[2,4]{1,0} reduce-scatter(%g), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add, metadata={op_name="gradients"}
  %small = f32[4]{0} all-reduce(%v), channel_id=5, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add, metadata={op_name="small"}
  ROOT %collective-permute = f32[8,4]{1,0} collective-permute(%all-gather-done), channel_id=4, source_target_pairs={{0,1},{1,0}}, metadata={op_name="shift"}
}
"""  # noqa: E501


@pytest.fixture
def program():
    return TpuProgram(textwrap.dedent(PROGRAM))


def test_a_loop_counts_as_often_as_it_runs_and_of_branches_the_dearest(program):
    # 13 rounds, one of the loop of unknown length, and the dear branch.
    assert program.cost.cycles == 14 * 100 + 1000


def test_a_loop_of_unknown_length_has_the_cost_of_a_round(program):
    assert list(program.rounds) == ["decode"]
    assert program.rounds["decode"].cycles == 100
    assert sum(program.rounds["decode"].collectives.values()) == 1


def test_collectives_have_their_bytes_groups_and_times(program):
    def collective(kind, elements, size, source):
        return Collective(
            kind=kind, elements=elements, size=size, group=4, source=source
        )

    gathered = collective("all-gather", 32, 128, "weights")
    scattered = collective("reduce-scatter", 8, 128, "gradients")
    reduced = collective("all-reduce", 32, 64, "scan/sum")
    (shifted,) = (c for c in program.cost.collectives if c.source == "shift")
    assert program.cost.collectives == {
        reduced: 14,
        gathered: 1,
        scattered: 1,
        collective("all-reduce", 4, 16, "small"): 1,
        shifted: 1,
    }
    # In a ring of four each device sends 3/4 of the bytes, and twice to reduce.
    assert reduced.moved == 2 * 64 * 3 / 4
    assert gathered.moved == scattered.moved == 128 * 3 / 4
    assert shifted.moved == 128


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="Expected the HLO of a compiled program"):
        TpuProgram("nothing")
