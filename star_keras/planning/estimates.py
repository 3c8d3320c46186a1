"""Memory and time of the steps of a run, estimated for TPUs."""

import collections

import keras

from star_keras.config import SamplingConfig, TrainingConfig
from star_keras.distribution import variable_shapes
from star_keras.planning.abstract_models import device_bytes, lower_train_step
from star_keras.planning.arithmetic import matrix_parameters, trained_parameters
from star_keras.planning.plan import ProgramPlan
from star_keras.planning.plan import plan as plan_program
from star_keras.sampling import ContinuousSampler
from star_keras.sampling.model_sampler import DECODE_CHUNK


def plan_training(model, device, config: TrainingConfig) -> dict:
    """Estimates of a training step.

    Args:
        model: A compiled `PackedCausalLM`, with values or without.
        device: A device of `tpu_devices`.
        config: Its `batch_size` and `sequence_length` are used.

    Returns:
        See `estimate`.

    Raises:
        ValueError: if the kind of the device is not in `CHIPS`.
    """
    plan = plan_program(
        lower_train_step(model, config.batch_size, config.sequence_length),
        device,
    )
    tokens = config.batch_size * config.sequence_length
    state = variable_shapes(model.variables + model.optimizer.variables)
    return estimate(
        plan,
        tokens=tokens,
        # 2 forward, 2 backward and 2 for gradients, without attention and
        # recomputation.
        flops=(4 * sum(matrix_parameters(model)) + 2 * trained_parameters(model))
        * tokens,
        # Weights and moments, read and written once.
        moved=2 * device_bytes(state),
    )


def plan_sampling(
    model,
    device,
    config: SamplingConfig,
    *,
    prefix_length: int,
    prompt_length: int,
    zero: bool = False,
) -> dict[str, dict]:
    """Estimates of the prefill of a group of prompts, and of a decoding step.

    Args:
        model: A compiled `PackedCausalLM`, with values or without.
        device: A device of `tpu_devices`.
        config: Sizes and temperature.
        prefix_length: Tokens of the few-shot prompt, 0 without one.
        prompt_length: Tokens of a problem's own prompt.
        zero: Whether weights and moments are split over the batch axis.

    Returns:
        `{"prefill": ..., "decode": ...}`, see `estimate`.

    Raises:
        ValueError: if the kind of the device is not in `CHIPS`, or a size is
            invalid.
    """
    sampler = ContinuousSampler(
        model,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.sample_batch_size,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
    )
    lowered = sampler.lower(
        prefix_length=prefix_length,
        prompt_length=prompt_length,
        cache_length=prompt_length + config.max_new_tokens,
    )
    # Training keeps its state on the device while the model samples.
    held = device_bytes(variable_shapes(model.optimizer.variables))
    if model.variable_dtype != model.compute_dtype or zero:
        held += device_bytes(variable_shapes(model.variables))
    embedding = model.backbone.token_embedding
    paths = [v.path for v in model.variables]
    table = sampler.variable_shapes()[paths.index(embedding.embeddings.path)]
    table = device_bytes(table)
    blocks, head = matrix_parameters(model)
    # The head's matrix is read whole, also if it is the embedding's.
    tied = getattr(embedding, "tie_weights", False)
    # Tokens, multiplications a token, bytes not read.
    work = {
        "prefill": (sampler.group_size * prompt_length, blocks, table),
        "decode": (config.sample_batch_size, blocks + head, 0 if tied else table),
    }
    found = {}
    for name, step in lowered.items():
        plan = plan_program(step, device)
        tokens, parameters, unread = work[name]
        found[name] = estimate(
            plan,
            tokens=tokens,
            flops=2 * parameters * tokens,
            # Weights and caches, read once.
            moved=plan.memory.get("arguments", 0) - unread,
            held=held,
            passes=DECODE_CHUNK if name == "decode" else None,
        )
    return found


def estimate(
    plan: ProgramPlan,
    *,
    tokens: int,
    flops: float,
    moved: int,
    held: int = 0,
    passes: int | None = None,
) -> dict:
    """Estimates of a compiled program, as JSON.

    Args:
        plan: The compiled program.
        tokens: Tokens of a step on all devices.
        flops: FLOPs of a step on all devices.
        moved: Least bytes of a step to and from the memory of a device.
        held: Bytes of a device held by other programs.
        passes: Passes that the program's loop makes, if a step is one of them. Cycles
            outside of the loop, such as copies of the caches, count in equal parts.

    Returns:
        `fits`, `memory` (bytes by use) and `flops_bound_seconds`; for a program that
        fits also `bandwidth_bound_seconds`, `work_seconds`, `exchange_seconds`,
        `tokens`, `tokens_per_second`, `collectives` and `largest_collective`.
    """
    memory = {**plan.memory, **({"held for training": held} if held else {})}
    needed = sum(memory.values())
    found = {
        "fits": plan.fits and needed <= plan.chip.memory,
        "memory": {**memory, "needed": needed, "available": plan.chip.memory},
        "flops_bound_seconds": flops / plan.chip.flops / _num_devices(),
    }
    if not plan.fits:
        return found
    found["bandwidth_bound_seconds"] = moved / plan.chip.bandwidth
    cost, outside = plan.cost, 0.0
    if passes:
        cost = max(plan.loops.values(), key=lambda cost: cost.cycles)
        outside = (plan.cost.cycles - cost.cycles) / passes
    sent = sum(c.moved * times for c, times in cost.collectives.items())
    # Newer kinds load weights beside other operations, outside of their cycles.
    work = (cost.cycles + outside) / plan.chip.clock
    work += cost.kernel_flops / plan.chip.flops
    work = max(work, found["bandwidth_bound_seconds"])
    exchange = sent / plan.chip.link_bandwidth
    collectives = collections.defaultdict(lambda: {"times": 0, "bytes": 0})
    for collective, times in cost.collectives.items():
        collectives[collective.kind]["times"] += times
        collectives[collective.kind]["bytes"] += times * collective.size
    return {
        **found,
        "work_seconds": work,
        "exchange_seconds": exchange,
        "tokens": tokens,
        "tokens_per_second": tokens / (work + exchange),
        "collectives": dict(collectives),
        "largest_collective": max((c.elements for c in cost.collectives), default=0),
    }


def _num_devices():
    return keras.distribution.distribution().device_mesh.devices.size
