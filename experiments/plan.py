"""Plan a run on TPUs that are not there: does it fit, and how fast may it be?

    python -m experiments.plan --preset=gpt_j_6b --topology=v3-8 \\
        --mesh=batch:1,model:8 --dtype=mixed_bfloat16 --gradient_checkpointing

Compiles the training step and the sampling steps of `experiments.star` for the
topology, from shapes alone; weights are neither read nor made. Takes the flags
of that script, flagfiles too. Nothing is run: times are estimates. Needs libtpu
(`pip install "star-keras[tpu-plan]"`); see docs/tpu.md.

    python -m experiments.plan --suggest --preset=gpt_j_6b --topology=v5e-8 \\
        --dtype=mixed_bfloat16 --n_train_samples=5000 --output=suggested.flags

ranks meshes, ZeRO, checkpointing, accumulation and slots by arithmetic, compiles the
best settings of the three fastest layouts, and writes a flagfile of the fastest by the
compiler.
"""

import dataclasses
import json

from absl import app

from experiments import (
    star,  # noqa: F401 (its flags are flags of this script too)
    suggestion,
)
from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import ModelSettings, load_libraries
from experiments.outputs import check_file
from experiments.plan_programs import by_arithmetic, estimate, make_model
from star_keras.config import OptimizerConfig, StarConfig
from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanSettings(Settings):
    """What is planned, and for which devices."""

    topology: str | None = setting(
        None,
        'E.g. "v3-8", "v5e-64" or "v5e:4x8", of each slice of --mesh; by arithmetic '
        'alone "rtx4090-24gb" and "h100-80gb", one GPU.',
        is_needed=True,
    )
    suggest: bool = setting(
        False,
        "Find --mesh, --zero, --gradient_checkpointing or not, "
        "--gradient_accumulation_steps and --sample_batch_size that fit and take "
        "least time an iteration. Needs --n_train_samples, the problems of one.",
    )
    programs: tuple[str, ...] = setting(("train", "sample"), "What to plan.")
    prefix_length: int = setting(700, "Tokens of the few-shot prompt.", at_least=0)
    prompt_length: int = setting(64, "Tokens of a problem's own prompt.", at_least=1)
    output: str | None = setting(
        None,
        "JSON file of the plan, or flagfile of the suggestion. Default: none.",
        is_path=True,
    )

    def check(self):
        if not set(self.programs) <= {"train", "sample"}:
            raise invalid("programs", "train, sample, or both", ",".join(self.programs))


# Of the JSON file of a plan.
_BEGINNING = '{\n  "flags": {\n    "topology"'

SETTINGS = (PlanSettings, ModelSettings, StarConfig, OptimizerConfig)
define_flags(PlanSettings)


# === Report ===


def report(name, found, advice):
    """Print the estimates of a step."""
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
        if f"{bound}_bound_seconds" in found:
            print(f"bound by {bound:<10}{_seconds(found[f'{bound}_bound_seconds'])}")
    for kind, total in found.get("collectives", {}).items():
        print(f"{kind:<19}{total['times']} a step, {total['bytes'] / 1e6:,.1f} MB")
    if "largest_collective" in found:
        print(f"largest exchange   {found['largest_collective']:,} numbers")


def _gib(size):
    return f"{size / 2**30:.2f}"


def _seconds(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"


def advice_for(name, model_settings, config, optimizer):
    """What could make a program fit."""
    from star_keras import distribution

    advice = []
    if model_settings.mesh:
        advice.append("more of the mesh for `model`, or more devices")
    axes = distribution.parse_mesh(model_settings.mesh or "batch:1")
    if axes["batch"] > 1 and not model_settings.zero:
        advice.insert(0, "--zero")
    if name != "train":
        return [*advice, "a smaller --sample_batch_size or --max_new_tokens"]
    parts = optimizer.gradient_accumulation_steps
    if parts * distribution.row_parts(axes) < config.training.batch_size:
        advice.insert(0, f"--gradient_accumulation_steps={2 * parts}")
    if not optimizer.gradient_checkpointing:
        advice.insert(0, "--gradient_checkpointing")
    return [*advice, "--lora_rank"]


def by_compiler(model, settings, model_settings, config):
    """Estimates of the compiled programs, by name."""
    import keras

    from star_keras import distribution, planning

    slices = distribution.parse_mesh(model_settings.mesh).get("slice", 1)
    devices = planning.tpu_devices(settings.topology, slices)
    zero = model_settings.zero
    mesh = distribution.model_parallel(model_settings.mesh, zero=zero, devices=devices)
    keras.distribution.set_distribution(mesh)
    print(
        f"Over {model_settings.mesh}{' with ZeRO' if zero else ''} of "
        f"{f'{slices} slices of ' if slices > 1 else ''}{settings.topology} "
        f"({len(devices)} x {devices[0].device_kind}).\nTimes are estimates; nothing "
        "was run.",
        flush=True,
    )
    return estimate(model, devices[0], settings, config, zero)


def main(argv):
    settings, model_settings, config, optimizer = from_flags(argv, *SETTINGS)
    if settings.suggest and "slice" in (model_settings.mesh or ""):
        raise app.UsageError(
            "--suggest is for one slice. Leave --mesh out: the suggestion has one."
        )
    if settings.suggest and not config.sampling.n_train_samples:
        raise app.UsageError(
            "--suggest needs --n_train_samples, the problems of an iteration. Set it "
            "as in the run."
        )
    if settings.output:
        if settings.suggest:
            check_file("output", settings.output, "flagfile", "# Suggested for ")
        else:
            check_file("output", settings.output, "plan", _BEGINNING)
    say_hello(f"plan of {model_settings.preset} for {settings.topology}")
    load_libraries()
    model_settings.choose_attention()
    from star_keras import planning
    from star_keras.utils import files

    gpu = planning.GPUS.get(settings.topology)
    if not (gpu or settings.suggest or model_settings.mesh):
        raise app.UsageError("--mesh is needed for TPUs, e.g. --mesh=batch:1,model:8.")
    if settings.suggest:
        suggestion.suggest(settings, model_settings, config, optimizer)
        return
    model = make_model(model_settings, optimizer)
    print(
        f"{model_settings.preset}, {model.count_params():,} parameters, "
        f"{model_settings.dtype}",
        flush=True,
    )
    if gpu:
        found = by_arithmetic(model, gpu, model_settings, settings, config, optimizer)
        print("By arithmetic. Nothing was compiled, nothing was run.")
    else:
        found = by_compiler(model, settings, model_settings, config)
    training, sampling = config.training, config.sampling
    titles = {
        "train": f"Train: {training.batch_size} rows of {training.sequence_length} "
        "tokens",
        "prefill": f"Sample, prefill: prompts of {settings.prompt_length} tokens",
        "decode": f"Sample, decode: a token for {sampling.sample_batch_size} rows",
    }
    for name, estimates in found.items():
        advice = advice_for(name, model_settings, config, optimizer)
        report(titles[name], estimates, advice)
    if settings.output:
        flags = {
            "topology": settings.topology,
            **dataclasses.asdict(model_settings),
            "gradient_checkpointing": optimizer.gradient_checkpointing,
        }
        flags.pop("compilation_cache_dir")
        text = json.dumps({"flags": flags, **found}, indent=2)
        files.write(settings.output, (text + "\n").encode("utf-8"))


if __name__ == "__main__":
    run_main(main)
