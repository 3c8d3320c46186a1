"""Plans of an iteration of GSM8K on absent TPUs, by arithmetic. Two Markdown tables.

    python -m benchmarks.plan_table

Nothing is compiled and nothing is run. Needs libtpu, which knows the topologies. Each
row has the settings of `experiments.plan --suggest` before the compiler checks them.
"""

import math

from experiments.common import ModelSettings
from experiments.plan_programs import make_model
from star_keras import planning
from star_keras.config import OptimizerConfig
from star_keras.models.splash_attention import splash_applies
from star_keras.planning.arithmetic import Iteration, matrix_parameters
from star_keras.planning.suggest import NothingFitsError, candidates

MODELS = {
    "GPT-J 6B": "gpt_j_6b",
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


def row(model, topology: str) -> list[str]:
    """Cells of a topology after the name of the model."""
    devices = planning.tpu_devices(topology)
    chip = planning.CHIPS[devices[0].device_kind]
    work = work_on(len(devices))
    splash = splash_applies(LENGTH, devices[0])
    try:
        best = candidates(model, chip, len(devices), work, splash=splash)[0]
    except NothingFitsError:
        return [topology, "does not fit", *["-"] * (len(HEADER) - 3)]
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
    parts = f", {best.parts} parts" if best.parts > 1 else ""
    settings = f"`{best.mesh}`{' ZeRO' if best.zero else ''}{parts}, "
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


def print_table(models: dict[str, str], topologies: tuple[str, ...]):
    """Print the rows of each model, each on its line as soon as it is known."""
    print("|", " | ".join(HEADER), "|")
    print("|", " | ".join(["---"] * len(HEADER)), "|")
    for name, preset in models.items():
        settings = ModelSettings(preset=preset, dtype="mixed_bfloat16")
        model = make_model(settings, OptimizerConfig(gradient_checkpointing=True))
        for topology in topologies:
            print("|", " | ".join([name, *row(model, topology)]), "|", flush=True)


def main():
    print_table(MODELS, TOPOLOGIES)
    print()
    print_table(LARGE_MODELS, LARGE_TOPOLOGIES)


if __name__ == "__main__":
    main()
