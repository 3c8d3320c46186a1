"""Plans of an iteration of GSM8K on absent TPUs. Markdown tables.

    python -m benchmarks.plan_table
    python -m benchmarks.plan_table --compiled --topologies v5e-8 --models Llama-3.2

Nothing is run. Needs libtpu, which knows the topologies. Each row has the settings of
`experiments.plan --suggest` before the compiler checks them. Times are by arithmetic,
or with `--compiled` by the TPU compiler: programs of 2 and 4 layers are compiled, and
the time of all layers is on the line through both. That holds while a sampler's whole
weights take at most half of a device. Memory is by arithmetic: it is not linear in the
layers.
"""

import star_keras  # noqa: F401  isort: skip  (before keras: selects the backend)

import argparse
import dataclasses
import json
import math
import pathlib
import tempfile

from experiments.common import ModelSettings
from experiments.plan import PlanSettings
from experiments.plan_programs import estimate_candidate, make_model, with_times
from star_keras import planning
from star_keras.config import (
    OptimizerConfig,
    SamplingConfig,
    StarConfig,
    TrainingConfig,
)
from star_keras.models.splash_attention import splash_applies
from star_keras.planning.arithmetic import Iteration, matrix_parameters
from star_keras.planning.suggest import NothingFitsError, candidates

MODELS = {
    "GPT-J 6B": "tests/fixtures/plans/gpt_j_6b",
    "Llama-3.2-1B": "tests/fixtures/recipes/gsm8k_llama3.2_1b",
    "Llama-3.1-8B": "tests/fixtures/plans/llama3.1_8b",
    "Qwen2.5-7B": "tests/fixtures/plans/qwen2.5_7b",
}
LARGE_MODELS = {
    "GPT-J shape, 20B": "tests/fixtures/plans/gpt_j_20b",
    "GPT-J shape, 40B": "tests/fixtures/plans/gpt_j_40b",
}
TOPOLOGIES = (
    "v3-8",
    "v4-32",
    "v5e-8",
    "v5e-64",
    "v5e-256",
    "v6e-8",
    "v6e-64",
    "v6e-256",
)
LARGE_TOPOLOGIES = ("v3-128", "v4-128", "v5e-256")
PROBLEMS = 7473  # of GSM8K's training set
PREFIX, PROMPT, NEW, LENGTH = 700, 128, 256, 1024
LAYERS = 2, 4  # of the programs that are compiled
HEADER = (
    "model",
    "TPU",
    "settings",
    "GiB a device, training / sampling",
    "training tokens/s",
    "share of peak",
    "sampled tokens/s",
    "iteration, min",
    "chip-hours",
    "chip-ms a training token",
    "chip-ms a sampled token",
)


def work_on(num_devices: int) -> Iteration:
    """An iteration: a completion of each problem, then an epoch of all of them."""
    rows = max(64, 8 * num_devices)
    tokens = PROBLEMS * (PROMPT + NEW)
    return Iteration(
        batch_size=rows,
        sequence_length=LENGTH,
        steps=math.ceil(tokens / (rows * LENGTH)),
        completions=PROBLEMS,
        prefix_length=PREFIX,
        prompt_length=PROMPT,
        max_new_tokens=NEW,
    )


def settings_of(preset) -> ModelSettings:
    return ModelSettings(preset=str(preset), dtype="mixed_bfloat16")


def compiled(preset: str, candidate, topology: str, devices, work: Iteration):
    """A candidate with the times of its programs, from those of 2 and 4 layers."""
    config = json.loads((pathlib.Path(preset) / "config.json").read_text())
    name = "n_layer" if "n_layer" in config else "num_hidden_layers"
    settings = PlanSettings(
        topology=topology,
        prefix_length=work.prefix_length,
        prompt_length=work.prompt_length,
    )
    star = StarConfig(
        training=TrainingConfig(
            batch_size=work.batch_size, sequence_length=work.sequence_length
        ),
        sampling=SamplingConfig(max_new_tokens=work.max_new_tokens),
    )
    times = []
    with tempfile.TemporaryDirectory() as directory:
        for layers in LAYERS:
            path = pathlib.Path(directory) / "config.json"
            path.write_text(json.dumps({**config, name: layers}))
            model_settings = settings_of(directory)
            found = estimate_candidate(
                candidate, devices, settings, model_settings, star, OptimizerConfig()
            )
            if too_large := [key for key, x in found.items() if not x["fits"]]:
                flags = candidate.flags
                raise ValueError(f"{too_large} of {preset} do not fit, with {flags}")
            timed = with_times(candidate, found, work.prompt_length)
            times.append(
                (timed.step_seconds, timed.prefill_seconds, timed.token_seconds)
            )
    rest = (config[name] - LAYERS[0]) / (LAYERS[1] - LAYERS[0])
    step, prefill, token = (a + rest * (b - a) for a, b in zip(*times, strict=True))
    return dataclasses.replace(
        candidate, step_seconds=step, prefill_seconds=prefill, token_seconds=token
    )


def row(preset: str, model, topology: str, by_compiler: bool) -> list[str]:
    """Cells of a topology after the name of the model."""
    devices = planning.tpu_devices(topology)
    chip = planning.CHIPS[devices[0].device_kind]
    work = work_on(len(devices))
    splash = splash_applies(LENGTH, devices[0])
    try:
        best = candidates(model, chip, len(devices), work, splash=splash)[0]
    except NothingFitsError:
        return [topology, "does not fit", *["-"] * (len(HEADER) - 3)]
    if by_compiler:
        best = compiled(preset, best, topology, devices, work)
    # A device of v3 is one of a chip's two cores.
    chips = len(devices) // (2 if topology.startswith("v3") else 1)
    tokens = work.batch_size * LENGTH
    seconds = best.seconds(work)
    sampling = seconds - work.steps * best.step_seconds
    flops = 6 * sum(matrix_parameters(model)) * tokens
    share = flops / best.step_seconds / (len(devices) * chip.flops)
    sampled = PROBLEMS * NEW
    uses = best.train_memory, best.sample_memory
    memory = [sum(sizes.values()) / 2**30 for sizes in uses]
    settings = f"`{best.mesh}`{' ZeRO' if best.zero else ''}, "
    settings += f"{best.parts} parts, " if best.parts > 1 else ""
    settings += "" if best.checkpointing else "no checkpointing, "
    return [
        topology,
        settings + f"{best.slots} slots",
        f"{memory[0]:.1f} / {memory[1]:.1f} of {chip.memory / 2**30:.1f}",
        f"{tokens / best.step_seconds:,.0f}",
        f"{share:.0%}",
        f"{sampled / sampling:,.0f}",
        f"{seconds / 60:.2f}",
        f"{chips * seconds / 3600:.2f}",
        f"{1000 * chips * best.step_seconds / tokens:.3g}",
        f"{1000 * chips * sampling / sampled:.3g}",
    ]


def print_table(models: dict[str, str], topologies: list[str], by_compiler: bool):
    """Print the rows of each model, each on its line as soon as it is known."""
    print("|", " | ".join(HEADER), "|")
    print("|", " | ".join(["---"] * len(HEADER)), "|")
    for name, preset in models.items():
        model = make_model(settings_of(preset), OptimizerConfig())
        for topology in topologies:
            cells = row(preset, model, topology, by_compiler)
            print("|", " | ".join([name, *cells]), "|", flush=True)
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    names = sorted({*TOPOLOGIES, *LARGE_TOPOLOGIES})
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--models", default="", help="those with this in their names")
    parser.add_argument("--topologies", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    for models, topologies in (
        (MODELS, TOPOLOGIES),
        (LARGE_MODELS, LARGE_TOPOLOGIES),
    ):
        models = {k: v for k, v in models.items() if options.models in k}
        topologies = [x for x in topologies if x in options.topologies]
        if models and topologies:
            print_table(models, topologies, options.compiled)


if __name__ == "__main__":
    main()
