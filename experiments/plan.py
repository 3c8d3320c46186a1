"""Plan a run on TPUs that are not there: does it fit, and how fast may it be?

    python -m experiments.plan --preset=gpt_j_6b --topology=v3-8 \
        --mesh=batch:1,model:8 --dtype=mixed_bfloat16 --gradient_checkpointing

Compiles the training step and the sampling steps of `experiments.star` for the
topology, from shapes alone; weights are neither read nor made. Takes the flags
of that script, flagfiles too. Nothing is run: times are estimates. Needs libtpu
(`pip install "star-keras[tpu-plan]"`); see docs/tpu.md.
"""

import collections
import json

import keras
from absl import app, flags
from etils import epath

from experiments.common import PRESETS_DIR, preset_source
from experiments.star import compile_model
from star_keras import distribution, files
from star_keras.models import (
    GPTJBackbone,
    GPTJCausalLM,
    GPTJCausalLMPreprocessor,
    load_causal_lm,
)
from star_keras.sampling import ContinuousSampler

FLAGS = flags.FLAGS
flags.DEFINE_string("topology", None, 'E.g. "v3-8", "v5e-64", or "v5e:4x8".')
flags.DEFINE_list("programs", ["train", "sample"], "What to plan.")
flags.DEFINE_integer("prefix_length", 700, "Tokens of the few-shot prompt.")
flags.DEFINE_integer("prompt_length", 64, "Tokens of a problem's own prompt.")
flags.DEFINE_string("output", None, "JSON file of the figures. Default: none.")


def check_flags(argv):
    """Raise for flags that do not go together."""
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    if not FLAGS.topology or not FLAGS.mesh:
        raise app.UsageError("--topology and --mesh are needed.")
    if not set(FLAGS.programs) <= {"train", "sample"}:
        raise app.UsageError(
            f"--programs={','.join(FLAGS.programs)} is invalid. Expected train, "
            "sample, or both."
        )


def make_model():
    """The compiled model of the flags, without values."""

    def make():
        if FLAGS.preset == "gpt_j_6b":
            backbone = GPTJBackbone.gpt_j_6b(dtype=FLAGS.dtype)
            model = GPTJCausalLM(backbone, compile=False)
        else:
            model = load_causal_lm(
                preset_source(), dtype=FLAGS.dtype, load_weights=False
            )
        if not isinstance(model, GPTJCausalLM):
            raise app.UsageError(
                f"Plans are for GPT-J. {FLAGS.preset!r} is a {type(model).__name__}."
            )
        if model.preprocessor is None:
            # The sampler wants one, but nothing is tokenized here.
            model.preprocessor = GPTJCausalLMPreprocessor.from_preset(
                str(PRESETS_DIR / "arithmetic_base")
            )
        compile_model(model)
        model.optimizer.build(model.trainable_variables)
        return model

    return distribution.from_shapes(make)


def matrix_parameters(model):
    """Weights that a token is multiplied with: all but the embedding's."""
    embedding = model.backbone.token_embedding
    return model.count_params() - embedding.count_params()


def plan_train(model, device):
    """Figures of a training step."""
    plan = distribution.plan(
        distribution.lower_train_step(model, FLAGS.batch_size, FLAGS.row_length),
        device,
    )
    tokens = FLAGS.batch_size * FLAGS.row_length
    state = distribution.variable_shapes(model.variables + model.optimizer.variables)
    return figures(
        plan,
        tokens=tokens,
        # Forward 2 and backward 4; attention, and what is computed again, not.
        flops=6 * matrix_parameters(model) * tokens,
        # Weights and moments, read and written once.
        moved=2 * distribution.device_bytes(state),
    )


def plan_sample(model, device):
    """Figures of the prefill of a group of prompts, and of a decoding step."""
    sampler = ContinuousSampler(
        model,
        max_new_tokens=FLAGS.max_new_tokens,
        batch_size=FLAGS.sample_batch_size,
        temperature=FLAGS.temperature,
        top_k=FLAGS.top_k,
        top_p=FLAGS.top_p,
    )
    lowered = sampler.lower(
        prefix_length=FLAGS.prefix_length,
        prompt_length=FLAGS.prompt_length,
        cache_length=FLAGS.prompt_length + FLAGS.max_new_tokens,
    )
    # What training keeps on the device meanwhile.
    held = distribution.device_bytes(
        distribution.variable_shapes(model.optimizer.variables)
    )
    if model.variable_dtype != model.compute_dtype or FLAGS.zero:
        held += distribution.device_bytes(distribution.variable_shapes(model.variables))
    table = sampler.variable_shapes()[
        [v.path for v in model.variables].index(
            model.backbone.token_embedding.embeddings.path
        )
    ]
    found = {}
    for name, step in lowered.items():
        plan = distribution.plan(step, device)
        tokens = FLAGS.sample_batch_size
        if name == "prefill":
            tokens = sampler.group_size * FLAGS.prompt_length
        found[name] = figures(
            plan,
            tokens=tokens,
            flops=2 * matrix_parameters(model) * tokens,
            # Weights and caches, read once.
            moved=plan.memory.get("arguments", 0) - distribution.device_bytes(table),
            held=held,
            one_round=name == "decode",
        )
    return found


def figures(plan, *, tokens, flops, moved, held=0, one_round=False):
    """Figures of a compiled program, as a dict for JSON.

    Args:
        plan: `ProgramPlan`.
        tokens: int. Tokens of a step on all devices.
        flops: float. FLOPs that a step needs on all devices.
        moved: int. Bytes that a step must move in a device's memory.
        held: int. Bytes of a device that other things take meanwhile.
        one_round: bool. Whether a step is one round of the program's loop.
    """
    memory = {**plan.memory, **({"held for training": held} if held else {})}
    needed = sum(memory.values())
    found = {
        "fits": plan.fits and needed <= plan.chip.memory,
        "memory": {**memory, "needed": needed, "available": plan.chip.memory},
        "flops_bound_seconds": flops / plan.chip.flops / num_devices(),
        "bandwidth_bound_seconds": moved / plan.chip.bandwidth,
    }
    if not plan.fits:
        return found
    cost = plan.cost
    if one_round:
        cost = max(plan.rounds.values(), key=lambda cost: cost.cycles)
    sent = sum(c.moved * times for c, times in cost.collectives.items())
    # Newer kinds load weights beside other work, in no operation's cycles.
    work = max(cost.cycles / plan.chip.clock, found["bandwidth_bound_seconds"])
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


def num_devices():
    return keras.distribution.distribution().device_mesh.devices.size


# === Report ===


def report(name, found, advice):
    """Print the figures of a step."""
    memory = found["memory"]
    print(f"\n=== {name} ===")
    verdict = "fits" if found["fits"] else "DOES NOT FIT"
    print(
        f"memory a device    {_gib(memory['needed'])} of {_gib(memory['available'])} "
        f"GiB: {verdict}"
    )
    for use, size in memory.items():
        if use not in ("needed", "available"):
            print(f"  {use:<18}{_gib(size)}")
    if not found["fits"]:
        print(f"  what would help: {'; '.join(advice)}")
    if "tokens" in found:
        seconds = found["work_seconds"] + found["exchange_seconds"]
        print(
            f"step, estimated    {_seconds(seconds)}: {_seconds(found['work_seconds'])}"
            f" of work, {_seconds(found['exchange_seconds'])} of exchange; "
            f"{found['tokens_per_second']:,.0f} tokens/s"
        )
    for bound in ("flops", "bandwidth"):
        print(f"bound by {bound:<10}{_seconds(found[f'{bound}_bound_seconds'])}")
    for kind, total in found.get("collectives", {}).items():
        print(f"{kind:<19}{total['times']} a step, {total['bytes'] / 1e6:,.1f} MB")
    if "largest_collective" in found:
        print(f"largest exchange   {found['largest_collective']:,} numbers")


def _gib(size):
    return f"{size / 2**30:.2f}"


def _seconds(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"


def advice_for(name):
    """What could make a program fit."""
    advice = ["more of the mesh for `model`, or more devices"]
    axes = distribution.parse_mesh(FLAGS.mesh)
    if axes["batch"] > 1 and not FLAGS.zero:
        advice.insert(0, "--zero")
    if name != "train":
        return [*advice, "a smaller --sample_batch_size or --max_new_tokens"]
    if FLAGS.gradient_accumulation_steps * axes["batch"] < FLAGS.batch_size:
        steps = 2 * FLAGS.gradient_accumulation_steps
        advice.insert(0, f"--gradient_accumulation_steps={steps}")
    if not FLAGS.gradient_checkpointing:
        advice.insert(0, "--gradient_checkpointing")
    return [*advice, "--lora_rank"]


def main(argv):
    check_flags(argv)
    devices = distribution.tpu_devices(FLAGS.topology)
    mesh = distribution.model_parallel(FLAGS.mesh, zero=FLAGS.zero, devices=devices)
    model = make_model()
    keras.distribution.set_distribution(mesh)
    kind = devices[0].device_kind
    print(
        f"{FLAGS.preset}, {model.count_params():,} parameters, {FLAGS.dtype}, over "
        f"{FLAGS.mesh}{' with ZeRO' if FLAGS.zero else ''} of {FLAGS.topology} "
        f"({len(devices)} x {kind}).\nTimes are estimates; nothing was run.",
        flush=True,
    )
    found = {}
    if "train" in FLAGS.programs:
        found["train"] = plan_train(model, devices[0])
    if "sample" in FLAGS.programs:
        found |= plan_sample(model, devices[0])
    titles = {
        "train": f"Train: {FLAGS.batch_size} rows of {FLAGS.row_length} tokens",
        "prefill": f"Sample, prefill: prompts of {FLAGS.prompt_length} tokens",
        "decode": f"Sample, decode: a token for {FLAGS.sample_batch_size} rows",
    }
    for name, figures_of_step in found.items():
        report(titles[name], figures_of_step, advice_for(name))
    if FLAGS.output:
        output = epath.Path(FLAGS.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"flags": _run_flags(), **found}, indent=2)
        files.write(output, (text + "\n").encode("utf-8"))


def _run_flags():
    names = ("preset", "topology", "mesh", "zero", "dtype", "gradient_checkpointing")
    return {name: FLAGS[name].value for name in names}


if __name__ == "__main__":
    app.run(main)
