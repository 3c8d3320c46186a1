import dataclasses
import math

import jax
import keras
import pytest

from star_keras import planning
from star_keras.config import OptimizerConfig
from star_keras.distribution import variable_shapes
from star_keras.models.forward import build_cache
from star_keras.planning.arithmetic import Arithmetic, Iteration, Weights
from star_keras.planning.suggest import NothingFitsError, candidates, numbers_of_slots
from star_keras.sampling import ContinuousSampler
from star_keras.testing import tiny_causal_lm
from star_keras.training import compile_model

GIB = 2**30
WORK = Iteration(
    batch_size=8,
    sequence_length=128,
    steps=10,
    completions=1000,
    prefix_length=0,
    prompt_length=32,
    max_new_tokens=32,
)


def chip(**changes):
    sizes = {
        "memory": GIB,
        "flops": 1e12,
        "bandwidth": 1e11,
        "link_bandwidth": 1e11,
        "clock": 1e9,
    }
    return planning.Chip(**{**sizes, **changes})


@pytest.fixture(scope="module")
def model():
    model = tiny_causal_lm("llama")
    compile_model(model, OptimizerConfig(gradient_checkpointing=True))
    model.optimizer.build(model.trainable_variables)
    return model


def test_bytes_on_one_device_are_those_of_the_arrays(model):
    weights = Weights(model, "batch:1,model:1", False, 1)
    variables = [v.value for v in model.variables]
    assert weights.weights == sum(x.nbytes for x in variables)
    moments = [v.value for v in model.optimizer.variables]
    assert weights.moments == sum(x.nbytes for x in moments)
    step = planning.lower_train_step
    # What the compiler counts, less the rows: 6 arrays of 4 bytes a token.
    keras.distribution.set_distribution(
        planning_distribution("batch:1,model:1", jax.devices()[:1])
    )
    try:
        compiled = step(model, 8, 128).compile().memory_analysis()
        shapes = variable_shapes(model.variables + model.optimizer.variables)
    finally:
        keras.distribution.set_distribution(None)
    held = weights.weights + weights.moments
    assert planning.device_bytes(shapes) == held
    rows = 6 * 4 * 8 * 128
    assert held <= compiled.argument_size_in_bytes <= held + rows + 1024


def planning_distribution(mesh, devices):
    from star_keras.distribution import model_parallel

    return model_parallel(mesh, devices=devices)


@pytest.mark.parametrize(
    ("mesh", "zero", "least", "most"),
    [
        # Norms, the scalars of the optimizer and metrics are whole everywhere.
        ("batch:2,model:1", False, 1.0, 1.0),
        ("batch:1,model:2", False, 0.5, 0.55),
        ("batch:2,model:1", True, 0.5, 0.55),
        ("batch:2,model:2", True, 0.25, 0.3),
    ],
)
def test_weights_and_moments_are_split_by_the_mesh(model, mesh, zero, least, most):
    devices = math.prod(int(axis.split(":")[1]) for axis in mesh.split(","))
    whole = Weights(model, "batch:1,model:1", False, 1)
    part = Weights(model, mesh, zero, devices)
    for name in ("weights", "moments", "gradients"):
        share = getattr(part, name) / getattr(whole, name)
        assert least <= share <= most
    # Samplers have the layout without ZeRO.
    assert part.gathered == Weights(model, mesh, False, devices).gathered


@pytest.mark.parametrize(("split", "pieces"), [(1, 1), (2, 2), (4, 1)])
def test_cache_bytes_are_those_of_the_sampler_with_heads_split_where_they_divide(
    model, split, pieces
):
    shapes = jax.tree.leaves(jax.eval_shape(lambda: build_cache(model, 16, 64)))
    whole = sum(math.prod(x.shape) * x.dtype.itemsize for x in shapes)
    found = Arithmetic(model, chip(), WORK, False).cache_bytes(16, 64, split)
    assert found == whole // pieces


@pytest.mark.parametrize("slots", [32, 48])
def test_prompts_and_temporary_memory_are_those_of_the_samplers_functions(model, slots):
    sampler = ContinuousSampler(model, max_new_tokens=32, batch_size=slots)
    ring, group = sampler.steps.ring, sampler.group_size
    cache, shorter, new = (
        jax.eval_shape(
            lambda rows=rows, length=length: build_cache(model, rows, length)
        )
        for rows, length in ((slots, 80), (slots, 64), (group, 32))
    )
    sizes = Arithmetic(model, chip(), WORK, False)
    memory = sizes.sample_memory(
        Weights(model, "batch:1,model:1", False, 1), 1, 1, slots
    )
    assert memory["prompts"] == planning.device_bytes(new)
    assert memory["caches"] == planning.device_bytes(cache)
    index = jax.ShapeDtypeStruct((), "int32")
    growing = ring.resize.lower(shorter, index, 80, slots).compile().memory_analysis()
    copied = growing.temp_size_in_bytes + growing.output_size_in_bytes
    assert copied == pytest.approx(memory["caches"], rel=1e-3)
    assert memory["temporary"] >= memory["caches"]


@pytest.mark.slow
def test_prompts_that_enter_the_caches_of_tpus_are_as_long_as_these():
    """For XLA's CPU compiler they take no memory, for the one of TPUs they do."""
    pytest.importorskip("libtpu")
    devices = planning.tpu_devices("v5e-8")
    model = planning.from_shapes(
        lambda: tiny_causal_lm(
            "llama",
            num_layers=8,
            hidden_dim=512,
            num_query_heads=4,
            num_key_value_heads=4,
            dtype="bfloat16",
        )
    )
    compile_model(model, OptimizerConfig())
    slots, length = 1024, 384
    work = dataclasses.replace(WORK, prompt_length=112, max_new_tokens=256)
    keras.distribution.set_distribution(
        planning_distribution("batch:4,model:2", devices)
    )
    try:
        sampler = ContinuousSampler(model, max_new_tokens=256, batch_size=slots)
    finally:
        keras.distribution.set_distribution(None)
    ring, group, layout = sampler.steps.ring, sampler.group_size, sampler.layout

    def cache(rows, length, axes):
        sharding = layout.sharding(axes, ring.heads_axis)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            jax.eval_shape(lambda: build_cache(model, rows, length)),
        )

    whole, new = cache(slots, length, layout.batch_axes), cache(group, 112, None)
    index, lengths, source = (
        jax.ShapeDtypeStruct(shape, "int32") for shape in ((), (group,), (slots,))
    )
    lowered = ring.insert.lower(whole, index, new, lengths, source)
    found = planning.plan(lowered, devices[0]).memory["temporary"]
    sizes = Arithmetic(model, chip(), work, False)
    entering = sizes.cache_bytes(group, length, 2)
    # And the keys of a layer as they will be.
    keys = planning.device_bytes(whole[0][0])
    assert found == pytest.approx(entering + keys, rel=0.1)


def test_prompts_are_whole_on_each_device_of_batch(model):
    sizes = Arithmetic(model, chip(), WORK, False)

    def memory(batch, slots):
        weights = Weights(model, f"batch:{batch},model:1", False, batch)
        return sizes.sample_memory(weights, batch, 1, slots)

    alone, shared = memory(1, 64), memory(4, 256)
    assert shared["caches"] == alone["caches"]
    assert shared["prompts"] == 4 * alone["prompts"]


def test_slots_end_where_they_hold_all_completions():
    assert numbers_of_slots(1, 10) == [1, 2, 3, 4, 5, 10]
    assert numbers_of_slots(4, 41) == [4, 8, 12, 16, 24, 44]
    assert numbers_of_slots(6, 41) == [6, 12, 18, 24, 42]
    assert numbers_of_slots(64, 3) == [64]


@pytest.mark.parametrize("completions", [0, 1, 7, 63, 64, 7473])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_slots_begin_with_one_a_device_and_hold_all_completions_at_last(
    batch, completions
):
    found = numbers_of_slots(batch, completions)
    assert found[0] == batch
    assert all(slots % batch == 0 for slots in found)
    assert found[-1] - batch < max(1, completions) <= found[-1]


def test_memory_alone_limits_the_slots_of_many_devices(model):
    work = dataclasses.replace(WORK, completions=10_000)
    slow = chip(bandwidth=1e6)
    best = candidates(model, slow, 4, work, splash=False)[0]
    assert best.slots == 10_000
    small = dataclasses.replace(slow, memory=best.needed // 2)
    found = candidates(model, small, 4, work, splash=False)[0]
    assert found.slots < 10_000
    assert found.needed <= 0.9 * small.memory


def test_seconds_of_an_iteration_are_steps_prefills_and_fills_of_the_slots(model):
    for found in candidates(model, chip(), 1, WORK, splash=False)[:5]:
        fills = -(-1000 // found.slots)
        assert found.seconds(WORK) == pytest.approx(
            10 * found.step_seconds
            + 1000 * found.prefill_seconds
            + fills * 32 * found.token_seconds
        )


def test_a_decoding_step_reads_weights_and_caches_at_the_bandwidth(model):
    slow = chip(bandwidth=1e6)
    for found in candidates(model, slow, 1, WORK, splash=False):
        memory = found.sample_memory
        read = memory["weights"] + memory["caches"] + memory["prefix"]
        assert found.token_seconds == pytest.approx(read / 1e6)


def test_the_fastest_comes_first_and_all_fit(model):
    found = candidates(model, chip(), 4, WORK, splash=False)
    seconds = [x.seconds(WORK) for x in found]
    assert seconds == sorted(seconds)
    assert all(x.needed <= GIB for x in found)
    assert {x.mesh for x in found} >= {"batch:4,model:1", "batch:2,model:2"}


def test_slow_links_leave_the_weights_whole(model):
    """Gradients cross the links once a step, hidden states in each layer."""
    found = candidates(model, chip(link_bandwidth=1e6), 2, WORK, splash=False)
    assert found[0].mesh == "batch:2,model:1"
    assert not found[0].zero
    assert found[0].parts == 1


def test_little_memory_is_met_with_accumulation_and_fewer_slots(model):
    def needs(found, which):
        return min(sum(getattr(x, which).values()) for x in found)

    everything = candidates(model, chip(), 1, WORK, splash=False)
    limit = max(needs(everything, "train_memory"), needs(everything, "sample_memory"))
    assert everything[0].needed > limit
    small = chip(memory=int(limit / 0.9) + 1)
    found = candidates(model, small, 1, WORK, splash=False)
    assert found[0].needed <= limit
    assert found[0].parts > everything[0].parts


def test_activations_are_computed_again_where_the_memory_is_too_small_to_keep_them(
    model,
):
    def best(**changes):
        return candidates(model, chip(**changes), 1, WORK, splash=True)[0]

    # At these bandwidths nothing but products takes time, and parts cost nothing.
    fast = {"bandwidth": 1e18, "flops": 1e9}
    assert not best(**fast).checkpointing
    everything = candidates(model, chip(**fast), 1, WORK, splash=True)
    least = min(sum(x.train_memory.values()) for x in everything if not x.checkpointing)
    small = best(**fast, memory=int(0.999 * least / 0.9))
    assert small.checkpointing
    assert small.step_seconds > best(**fast).step_seconds


def test_on_a_gpu_activations_are_computed_again(model):
    gpu = planning.GPUS["h100-80gb"]
    found = candidates(model, gpu, 1, WORK, splash=False)
    assert all(x.checkpointing for x in found)


def test_a_model_that_fits_nowhere_is_refused_with_its_smallest_need(model):
    with pytest.raises(
        NothingFitsError, match=r"smallest need is .* GiB.*more devices"
    ):
        candidates(model, chip(memory=1000), 2, WORK, splash=False)


def test_devices_that_divide_nothing_are_refused_with_the_reasons(model):
    with pytest.raises(ValueError, match=r"num_devices=7.*batch_size=8 does not"):
        candidates(model, chip(), 7, WORK, splash=False)
