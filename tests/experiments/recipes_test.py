"""Flagfiles for models of the Hub, tried with small models of the same families."""

import json
import re
import shutil

import pytest

from star_keras import planning
from star_keras.config import OptimizerConfig
from star_keras.models import load_causal_lm
from star_keras.planning.arithmetic import Arithmetic, Iteration, Weights
from star_keras.training import compile_model
from tests.conftest import run_experiment
from tests.forks import ROOT

FLAGFILES = ROOT / "experiments" / "flagfiles"
FIXTURES = ROOT / "tests" / "fixtures"
# Names of the fixture directory and of the chat template.
FAMILIES = {
    "gsm8k_qwen2.5_0.5b": ("qwen2", "qwen2"),
    "math_qwen2.5_1.5b": ("qwen2", "qwen2"),
    "gsm8k_llama3.2_1b": ("llama_rope_parameters", "llama3"),
    "math_gemma3_1b": ("gemma3", "gemma3"),
}


def make_model(directory, family, template):
    """A small model whose positions are enough for a few-shot prompt of its tokens."""
    shutil.copytree(FIXTURES / "hugging_face" / family, directory)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"max_position_embeddings": 16_384}))
    shutil.copy(
        FIXTURES / "chat_templates" / f"{template}.jinja",
        directory / "chat_template.jinja",
    )


def write_problems(directory):
    """A few problems in the files of GSM8K and MATH."""
    for name in ("train", "test"):
        gsm8k, math = [], []
        for n in range(1, 5):
            question = f"A {name} bus has {n} seats, and {n} more. How many are there?"
            gsm8k.append({"question": question, "answer": f"#### {2 * n}"})
            problem = {"problem": question, "solution": rf"\boxed{{{2 * n}}}"}
            math.append({**problem, "level": "Level 1", "type": "Algebra"})
        for file, lines in ((f"{name}.jsonl", gsm8k), (f"math_{name}.jsonl", math)):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (directory / file).write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_dry_run_of_a_recipe(name, tmp_path):
    make_model(tmp_path / "model", *FAMILIES[name])
    write_problems(tmp_path)
    data = (
        [f"--data_dir={tmp_path}", "--validation_problems=2"]
        if name.startswith("gsm8k")
        else [
            f"--train_path={tmp_path / 'math_train.jsonl'}",
            f"--eval_path={tmp_path / 'math_test.jsonl'}",
        ]
    )
    done = run_experiment(
        "star",
        f"--flagfile={FLAGFILES / name}.flags",
        f"--preset={tmp_path / 'model'}",
        f"--run_dir={tmp_path / 'run'}",
        *data,
        "--mesh=",
        "--nozero",
        "--dtype=float32",
        "--max_new_tokens=8",
        "--sequence_length=4096",
        "--dry_run",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "=== Plan ===" in done.stdout
    assert re.search(r"^3 iterations, [24] training problems each", done.stdout, re.M)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_fits_the_gpus_that_it_names(name):
    """The real shapes of the model, and the flags of the flagfile's first lines."""
    text = (FLAGFILES / f"{name}.flags").read_text()
    sizes = re.findall(r"^# (\d+ GB): (.*)$", text, re.M)
    assert [size for size, _ in sizes] == ["80 GB", "24 GB"]
    for (_, flags), topology in zip(sizes, ("h100-80gb", "rtx4090-24gb"), strict=True):
        done = run_experiment(
            "plan",
            f"--flagfile={FLAGFILES / name}.flags",
            f"--preset={FIXTURES / 'recipes' / name}",
            f"--topology={topology}",
            "--prefix_length=1024",
            "--prompt_length=128",
            *flags.split(),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("GiB: fits") == 2, done.stdout


@pytest.mark.parametrize("name", FAMILIES)
def test_a_recipe_fits_a_v5e_8(name):
    flags = dict(
        re.findall(r"^--(\w+)=?(.*)$", (FLAGFILES / f"{name}.flags").read_text(), re.M)
    )
    model = planning.from_shapes(lambda: compiled(FIXTURES / "recipes" / name, flags))
    work = Iteration(
        batch_size=int(flags["batch_size"]),
        sequence_length=int(flags["sequence_length"]),
        steps=1,
        completions=1,
        prefix_length=1024,
        prompt_length=128,
        max_new_tokens=int(flags["max_new_tokens"]),
    )
    chip = planning.CHIPS["TPU v5 lite"]
    sizes = Arithmetic(model, chip, work, splash=True)
    assert flags["mesh"] == "batch:8,model:1"
    weights = Weights(model, flags["mesh"], "zero" in flags, 8)
    parts = int(flags.get("gradient_accumulation_steps", 1))
    slots = int(flags["sample_batch_size"])
    for memory in (
        sizes.train_memory(weights, 8, 1, True, parts),
        sizes.sample_memory(weights, 8, 1, slots),
    ):
        assert sum(memory.values()) < 0.9 * chip.memory, memory


def compiled(directory, flags):
    model = load_causal_lm(str(directory), dtype=flags["dtype"], load_weights=False)
    compile_model(model, OptimizerConfig(gradient_checkpointing=True))
    model.optimizer.build(model.trainable_variables)
    return model


def test_every_recipe_of_the_hub_is_tried():
    recipes = {
        path.stem
        for path in FLAGFILES.glob("*.flags")
        if re.search(r"^--preset=hf://(?!EleutherAI)", path.read_text(), re.M)
    }
    assert recipes == set(FAMILIES)
