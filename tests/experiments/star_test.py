import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from star_keras.models import GPTJCausalLM
from star_keras.storage.command_log import read_commands
from tests.conftest import run_experiment

ROOT = Path(__file__).parents[2]


def run(*arguments):
    return run_experiment("star", *arguments)


@pytest.fixture
def tiny(make_model, tmp_path):
    """Flags of a run of seconds, on a random model."""
    make_model(num_layers=1).save_to_preset(str(tmp_path / "preset"))
    return [
        f"--preset={tmp_path / 'preset'}",
        f"--run_dir={tmp_path / 'run'}",
        "--digits=1",
        "--eval_problems=4",
        "--n_train_samples=6",
        "--examples_per_length=1",
        "--max_new_tokens=16",
        "--sequence_length=128",
        "--batch_size=2",
        "--start_steps=2",
        "--iterations=2",
        "--verbose=0",
    ]


@pytest.mark.slow
def test_a_run_prints_nothing_of_absent_devices(tiny, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME")}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.star", *tiny, "--dry_run", "--skip_eval"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("star-keras 0.2.0: STaR on arithmetic from ")
    assert re.search(r"\n\d+ (cpu|gpu|tpu) devices?( \(.+\))?\n", done.stdout)
    assert done.stderr == ""


def test_a_verifier_needs_a_share_to_drop():
    for flag, name, received in (
        ("--verifier=x", "verifier", "'x'"),
        ("--drop_lowest=0.2", "drop_lowest", "0.2"),
    ):
        result = run("--run_dir=x", flag)
        assert result.returncode == 1
        assert result.stderr.startswith(f"Invalid value for argument `{name}`. ")
        assert f"Received: {name}={received}." in result.stderr
        assert result.stderr.count("\n") == 1
        assert result.stdout == ""


def test_a_run_again_begins_within_its_iterations():
    result = run("--run_dir=x", "--iterations=2", "--start_iter=3")
    assert result.returncode == 1
    assert "`start_iter`. Expected at most iterations=2" in result.stderr


@pytest.mark.slow
def test_run_leaves_metrics_samples_plots_and_a_preset(tiny, tmp_path):
    result = run(*tiny, "--extra_eval_splits=eval")
    assert result.returncode == 0, result.stderr
    run_dir = tmp_path / "run"
    lines = [
        json.loads(x) for x in (run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["iteration"] for line in lines] == [0, 1, 2]
    assert all("eval_accuracy/1_digit" in line for line in lines)
    assert {p.name for p in (run_dir / "samples").iterdir()} == {
        f"iteration_{n:04d}" for n in range(3)
    }
    metrics = json.loads((run_dir / "eval" / "metrics.json").read_text())
    assert metrics["accuracy"] == lines[-1]["eval_accuracy"]
    assert (run_dir / "accuracy.png").exists()
    model = GPTJCausalLM.from_preset(str(run_dir / "preset"))
    model.compile(sampler="greedy")
    assert model.generate("Input:", max_length=12).startswith("Input:")
    (command,) = read_commands(run_dir)
    assert command["command"].startswith("experiments.star --preset=")
    # The same command finds all of it done.
    again = run(*tiny)
    assert again.returncode == 0, again.stderr
    assert len((run_dir / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_dry_run_prints_prompts_rows_and_plan_and_trains_nothing(tiny, tmp_path):
    result = run(*tiny, "--dry_run", "--schedule=steady", "--add_steps=3")
    assert result.returncode == 0, result.stderr
    for part in (
        "iteration 1, sample: 6 completions",
        "=== Prompt, rationale ===",
        "=== Completion, ",
        "=== Prompt, rationalization ===",
        "=== A row: ",
    ):
        assert part in result.stdout
    assert "2 iterations, 6 training problems each" in result.stdout
    assert "training steps by iteration: [2, 5]" in result.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--preset=gpt_5", r"`preset`. Expected one of.*arithmetic_base.*'gpt_5'"),
        ("--task=chess", "--task=chess: .*one of <arithmetic"),
        ("--digits=two", "`digits`. Expected numbers"),
        ("--extra_eval_splits=moon", "has .'moon'.. Expected some of"),
        ("--schedule=linear", "--schedule=linear.*one of <exponential"),
        ("--mesh=model:3", "3 places"),
        ("--batchsize=3", "Unknown command line flag 'batchsize'. Did you mean"),
    ],
)
def test_mistyped_flags_are_clear_errors(tiny, flag, message):
    result = run(*tiny, flag)
    assert result.returncode != 0
    assert re.search(message, result.stderr + result.stdout), result.stderr[-500:]


@pytest.mark.parametrize("where", ["--dry_run", "--run_dir=run"])
def test_a_malformed_line_is_named_without_a_traceback(tmp_path, where):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"question": "q"}\n')
    where = where.replace("=", f"={tmp_path}/")
    result = run("--task=yes_no", f"--train_path={path}", f"--eval_path={path}", where)
    assert result.returncode != 0
    assert "lines.jsonl, line 1: Missing 'answer'" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_error_of_a_run_has_no_traceback(tiny):
    assert run(*tiny, "--iterations=1").returncode == 0
    done = run(*tiny, "--n_train_samples=5")
    assert done.returncode == 1
    assert "n_train_samples" in done.stderr
    assert "Traceback" not in done.stderr


def test_shipped_base_model_adds_two_digits_and_is_small():
    preset = ROOT / "star_keras" / "presets" / "arithmetic_base"
    size = sum(p.stat().st_size for p in preset.rglob("*") if p.is_file())
    assert size <= 5 * 2**20
    model = GPTJCausalLM.from_preset("arithmetic_base")
    model.compile(sampler="greedy")
    text = model.generate("Input:\n3 4 + 2 9\nTarget:\n", max_length=80)
    assert text.endswith("</scratch>\n6 3")
    keras.backend.clear_session()
