"""Plan a run on TPUs that are not there: does it fit, and how fast may it be?

    python -m experiments.plan --preset=gpt_j_6b --topology=v3-8 \
        --mesh=batch:1,model:8 --dtype=mixed_bfloat16 --gradient_checkpointing

Compiles the training step and the sampling steps of `experiments.star` for the
topology, from shapes alone; weights are neither read nor made. Takes the flags
of that script, flagfiles too. Times are estimates, nothing is run. Needs libtpu:
`pip install "star-keras[tpu-plan]"`.
"""

import json
from pathlib import Path

import keras
from absl import app, flags

from experiments.common import PRESETS_DIR, preset_source
from experiments.star import compile_model
from star_keras import distribution
from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    GPTJCausalLMPreprocessor,
    load_causal_lm,
)
from star_keras.sampling import ContinuousSampler

FLAGS = flags.FLAGS
flags.DEFINE_string("topology", None, 'E.g. "v3-8", "v5e-64", or "v5e:4x8".')
flags.DEFINE_list("steps", ["train", "sample"], "What to plan.")
flags.DEFINE_integer("prefix_length", 700, "Tokens of the few-shot prompt.")
flags.DEFINE_integer("prompt_length", 64, "Tokens of a problem's own prompt.")
flags.DEFINE_string("output", None, "JSON file of the figures. Default: none.")


def check_flags(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not FLAGS.topology or not FLAGS.mesh:
        raise app.UsageError("--topology and --mesh are needed.")
    if not set(FLAGS.steps) <= {"train", "sample"}:
        raise app.UsageError(
            f'--steps={FLAGS.steps} is invalid. Expected "train", "sample" or both.'
        )


def make_model():
    """The compiled model of the flags, without values."""

    def make():
        if FLAGS.preset == "gpt_j_6b":
            # Any tokenizer will do: nothing is tokenized.
            preprocessor = GPTJCausalLMPreprocessor.from_preset(
                str(PRESETS_DIR / "arithmetic_base")
            )
            backbone = GPTJBackbone.gpt_j_6b(dtype=FLAGS.dtype)
            model = GPTJCausalLM(backbone, preprocessor, compile=False)
        else:
            model = load_causal_lm(
                preset_source(), dtype=FLAGS.dtype, load_weights=False
            )
        if not isinstance(model, GPTJCausalLM):
            raise app.UsageError(
                f"Plans are for GPT-J. {FLAGS.preset!r} is a {type(model).__name__}."
            )
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
        return model

    return distribution.from_shapes(make)


def plan_train(model, device):
    """Figures of the training step."""
    lowered = distribution.lower_train_step(model, FLAGS.batch_size, FLAGS.row_length)
    plan = distribution.plan(lowered, device)
    tokens = FLAGS.batch_size * FLAGS.row_length
    state = distribution.variable_shapes(model.variables + model.optimizer.variables)
    return _figures(
        plan,
        tokens,
        # Forward 2, backward 4; what is computed again is not needed.
        flops=6 * _matrix_parameters(model) * tokens,
        # Weights and moments are read once and written once.
        read=2 * distribution.device_bytes(state),
        advice=_train_advice(),
    )


def _train_advice():
    advice = []
    if not FLAGS.gradient_checkpointing:
        advice.append("--gradient_checkpointing")
    if FLAGS.gradient_accumulation_steps < FLAGS.batch_size:
        advice.append(
            f"--gradient_accumulation_steps={2 * FLAGS.gradient_accumulation_steps}"
        )
    advice.append("more of the mesh for `model`, more devices, or --lora_rank")
    return advice


def plan_sample(model, device):
    """Figures of the sampler's two compiled steps, by name."""
    sampler = ContinuousSampler(
        model,
        max_new_tokens=FLAGS.max_new_tokens,
        batch_size=FLAGS.sample_batch_size,
        temperature=FLAGS.temperature,
        top_k=FLAGS.top_k,
        top_p=FLAGS.top_p,
    )
    steps = sampler.lower(
        prefix_length=FLAGS.prefix_length,
        prompt_length=FLAGS.prompt_length,
        cache_length=FLAGS.prompt_length + FLAGS.max_new_tokens,
    )
    figures = {}
    for name, lowered in steps.items():
        plan = distribution.plan(lowered, device)
        ...
    return figures
