"""The model of a plan, and the estimates of its programs."""

import dataclasses

from absl import app

from star_keras.config import StarConfig
from star_keras.utils.errors import invalid


def make_model(settings, optimizer):
    """The compiled model of the flags, without values."""
    from star_keras import planning
    from star_keras.models import (
        GPTJBackbone,
        GPTJCausalLM,
        GPTJCausalLMPreprocessor,
        PackedCausalLM,
        load_causal_lm,
    )
    from star_keras.models.presets import preset_path
    from star_keras.training import compile_model

    def make():
        if settings.preset == "gpt_j_6b":
            backbone = GPTJBackbone.gpt_j_6b(dtype=settings.dtype)
            model = GPTJCausalLM(backbone, compile=False)
        else:
            model = load_causal_lm(
                settings.preset, dtype=settings.dtype, load_weights=False
            )
        if not isinstance(model, PackedCausalLM):
            raise app.UsageError(
                "Plans are for models that train and sample the fast way, see "
                f"docs/models.md. {settings.preset!r} is a {type(model).__name__}."
            )
        if model.preprocessor is None:
            # The sampler wants one, but nothing is tokenized here.
            model.preprocessor = GPTJCausalLMPreprocessor.from_preset(
                preset_path("arithmetic_base")
            )
        compile_model(model, optimizer)
        model.optimizer.build(model.trainable_variables)
        return model

    return planning.from_shapes(make)


def estimate(model, device, settings, config, zero):
    """Estimates of the programs of `settings`, by name."""
    from star_keras.planning.estimates import plan_sampling, plan_training

    found = {}
    if "train" in settings.programs:
        found["train"] = plan_training(model, device, config.training)
    if "sample" in settings.programs:
        found |= plan_sampling(
            model,
            device,
            config.sampling,
            prefix_length=settings.prefix_length,
            prompt_length=settings.prompt_length,
            zero=zero,
        )
    return found


def estimate_candidate(candidate, devices, settings, model_settings, config, optimizer):
    """Estimates of a candidate's training and sampling, in the form of `estimate`.

    Args:
        candidate: `Candidate`. Its layout, checkpointing, parts and slots take the
            place of those in the flags.
        devices: list of JAX devices of the topology.
        settings, model_settings, config, optimizer: The flags.
    """
    import keras

    from star_keras import distribution

    optimizer = dataclasses.replace(
        optimizer,
        gradient_checkpointing=candidate.checkpointing,
        gradient_accumulation_steps=candidate.parts,
    )
    sampling = dataclasses.replace(config.sampling, sample_batch_size=candidate.slots)
    model = make_model(model_settings, optimizer)
    mesh = distribution.model_parallel(
        candidate.mesh, zero=candidate.zero, devices=devices
    )
    keras.distribution.set_distribution(mesh)
    try:
        return estimate(
            model,
            devices[0],
            dataclasses.replace(settings, programs=("train", "sample")),
            dataclasses.replace(config, sampling=sampling),
            candidate.zero,
        )
    finally:
        keras.distribution.set_distribution(None)


def with_times(candidate, found, prompt_length: int):
    """A candidate with the times of its programs in place of those by arithmetic.

    Args:
        candidate: `Candidate`.
        found: dict of the estimates `"train"`, `"prefill"` and `"decode"`, which fit.
        prompt_length: Tokens of a problem's own prompt.
    """
    train, prefill, decode = (
        found[name]["work_seconds"] + found[name]["exchange_seconds"]
        for name in ("train", "prefill", "decode")
    )
    prompts = found["prefill"]["tokens"] / prompt_length
    return dataclasses.replace(
        candidate,
        step_seconds=train,
        prefill_seconds=prefill / prompts,
        token_seconds=decode,
    )


def iteration_of(config: StarConfig, *, prefix_length: int, prompt_length: int):
    """The work of the first iteration, with completions of the full length.

    Args:
        config: The settings of the run. Without `n_train_samples` there are no
            completions.
        prefix_length: Tokens of the few-shot prompt.
        prompt_length: Tokens of a problem's own prompt.

    Returns:
        A `star_keras.planning.arithmetic.Iteration`.
    """
    from star_keras.planning.arithmetic import Iteration

    training, sampling = config.training, config.sampling
    completions = (sampling.n_train_samples or 0) * sampling.samples_per_problem
    steps = training.start_steps
    if training.schedule == "epochs":
        tokens = completions * (prompt_length + sampling.max_new_tokens)
        step = training.batch_size * training.sequence_length
        steps = max(1, round(training.base_epochs * tokens / step))
    return Iteration(
        batch_size=training.batch_size,
        sequence_length=training.sequence_length,
        steps=steps,
        completions=completions,
        prefix_length=prefix_length if sampling.few_shot else 0,
        prompt_length=prompt_length,
        max_new_tokens=sampling.max_new_tokens,
    )


def by_arithmetic(model, chip, model_settings, settings, config, optimizer):
    """Estimates of training and decoding on one GPU, in the form of `estimate`.

    Raises:
        ValueError: if there is a mesh; without gradient checkpointing, which the
            arithmetic of GPUs has always; if the parts do not divide the batch.
    """
    from star_keras.planning.arithmetic import Arithmetic, Weights
    from star_keras.planning.suggest import SHARE_OF_MEMORY

    if model_settings.mesh:
        rule = f"none: {settings.topology} is one device"
        raise invalid("mesh", rule, model_settings.mesh, "Add --mesh= --nozero.")
    if not optimizer.gradient_checkpointing:
        remedy = "Add --gradient_checkpointing."
        raise invalid("gradient_checkpointing", "True for GPUs", False, remedy)
    iteration = iteration_of(
        config,
        prefix_length=settings.prefix_length,
        prompt_length=settings.prompt_length,
    )
    parts = optimizer.gradient_accumulation_steps
    if iteration.batch_size % parts:
        rule = f"a divisor of batch_size={iteration.batch_size}"
        raise invalid("gradient_accumulation_steps", rule, parts)
    sizes = Arithmetic(model, chip, iteration, splash=False)
    weights = Weights(model, "batch:1,model:1", False, 1)
    slots = config.sampling.sample_batch_size
    _, token = sizes.sample_seconds(weights, 1, 1, slots)
    rows = iteration.batch_size * iteration.sequence_length
    found = {}
    if "train" in settings.programs:
        seconds = sizes.step_seconds(weights, 1, 1, False, True, parts)
        found["train"] = sizes.train_memory(weights, 1, 1, True, parts), seconds, rows
    if "sample" in settings.programs:
        found["decode"] = sizes.sample_memory(weights, 1, 1, slots), token, slots
    available = int(SHARE_OF_MEMORY * chip.memory)
    return {
        name: {
            "fits": sum(memory.values()) <= available,
            "memory": {
                **memory,
                "needed": sum(memory.values()),
                "available": available,
            },
            "work_seconds": seconds,
            "exchange_seconds": 0.0,
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
        }
        for name, (memory, seconds, tokens) in found.items()
    }
