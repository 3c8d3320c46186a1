"""A verifier from a run, and its place in an evaluation."""

import json
import re

import pytest

from star_keras.storage.records import GradedSample
from star_keras.storage.run_directory import RunDirectory
from star_keras.tasks import Arithmetic
from tests.conftest import run_experiment

TASK = ["--task=arithmetic", "--digits=1", "--examples_per_length=0"]


def make_run(path):
    """The samples of an iteration: for each problem two right ones and two wrong."""
    task = Arithmetic(digits=[1], extrapolation_digits=())
    run = RunDirectory(path)
    run.open({})
    samples = [
        GradedSample(
            iteration=1,
            problem=problem.id,
            problem_class=problem.problem_class,
            sample=number,
            kind="rationale",
            completion=f"{'thus ' * number}{problem.answer if number % 2 else 'none'}",
            num_tokens=3,
            finish_reason="stop",
            answer=None,
            verdict="correct" if number % 2 else "unparsed",
        )
        for problem in task.problems("train")[:6]
        for number in range(4)
    ]
    run.samples.finish(1, "rationale", samples)
    run.close()


@pytest.mark.slow
def test_a_verifier_learns_from_a_run_and_ranks_completions(make_model, tmp_path):
    make_run(tmp_path / "run")
    make_model(num_layers=1).save_to_preset(str(tmp_path / "preset"))
    base = f"--preset={tmp_path / 'preset'}"
    verifier = tmp_path / "verifier"
    result = run_experiment(
        *("verifier", *TASK, base, f"--run_dir={tmp_path / 'run'}"),
        *(f"--output={verifier}", "--training_steps=12", "--learning_rate=1e-3"),
        *("--batch_size=2", "--sequence_length=256", "--warmup_steps=0"),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "12 pairs of 6 problems" in result.stdout
    learned = dict(
        line.split() for line in result.stdout.splitlines() if line.startswith("pair_")
    )
    assert float(learned["pair_accuracy"]) > 0.5
    assert float(learned["pair_margin"]) > 0
    output = tmp_path / "evaluation"
    result = run_experiment(
        *("evaluate", *TASK, base, f"--verifier={verifier}", f"--output={output}"),
        *("--num_samples=3", "--temperature=1", "--max_new_tokens=8"),
        *("--eval_problems=2", "--nofew_shot"),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((output / "metrics.json").read_text())
    assert {"best@1", "best@2", "best@3", "pass@3", "maj@3"} <= metrics.keys()
    assert metrics["best@1"] == pytest.approx(metrics["pass@1"])
    assert metrics["best@3"] <= metrics["pass@3"]


def test_neither_another_directory_nor_a_run_as_output_is_taken_for_a_run(tmp_path):
    arguments = f"--run_dir={tmp_path / 'none'}", f"--output={tmp_path / 'out'}"
    result = run_experiment("verifier", *arguments)
    assert result.returncode == 1
    assert "`run_dir`. Expected the directory of a run" in result.stderr
    make_run(tmp_path / "run")
    arguments = f"--run_dir={tmp_path / 'run'}", f"--output={tmp_path / 'run'}"
    result = run_experiment("verifier", *arguments)
    assert result.returncode == 1
    assert "`output`. Expected a new or an empty directory" in result.stderr
    assert '"layout"' in (tmp_path / "run" / "config.json").read_text()


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("verifier", ["--run_dir=x"], "--output is needed"),
        ("verifier", ["--output=x"], "--run_dir is needed"),
        ("evaluate", ["--output=x", "--verifier=y"], "`verifier`.*nothing to rank"),
    ],
)
def test_flags_that_are_missing_or_do_not_go_together_are_named(
    script, arguments, message
):
    result = run_experiment(script, *arguments)
    assert result.returncode == 1
    found = " ".join((result.stdout + result.stderr).split())
    assert re.search(message, found), found[-2000:]
