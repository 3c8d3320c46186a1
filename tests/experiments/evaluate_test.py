"""The baselines and the evaluation, from their command lines."""

import json

import pytest

from tests.conftest import run_experiment


@pytest.fixture
def tiny(make_model, tmp_path):
    make_model(num_layers=1).save_to_preset(str(tmp_path / "preset"))
    return [
        f"--preset={tmp_path / 'preset'}",
        "--digits=1,2",
        "--eval_problems=3",
        "--examples_per_length=1",
        "--max_new_tokens=16",
    ]


def read(directory):
    metrics = json.loads((directory / "metrics.json").read_text())
    lines = (directory / "completions.jsonl").read_text().splitlines()
    return metrics, [json.loads(line) for line in lines]


@pytest.mark.slow
def test_several_samples_give_pass_at_k_and_maj_at_k(tiny, tmp_path):
    output = tmp_path / "out"
    result = run_experiment(
        "evaluate", *tiny, f"--output={output}", "--num_samples=3", "--temperature=1"
    )
    assert result.returncode == 0, result.stderr
    metrics, completions = read(output)
    assert {"accuracy", "accuracy/2_digits", "pass@1", "pass@3", "maj@3"} <= set(
        metrics
    )
    assert (metrics["num_problems"], metrics["num_samples"]) == (6, 3)
    assert metrics["temperature"] == 1 and "top_k" not in metrics
    assert "Completions are greedy." not in result.stdout
    assert [c["sample"] for c in completions] == [0, 1, 2] * 6
    assert (output / "by_k.png").exists()
    # Samples of a problem differ: their seeds do.
    assert len({c["completion"] for c in completions[:3]}) == 3


@pytest.mark.slow
def test_few_shot_evaluates_direct_and_chain_of_thought(tiny, tmp_path):
    result = run_experiment(
        "few_shot", *tiny, f"--output={tmp_path / 'out'}", "--num_problems=2"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Completions are greedy.") == 2
    for name in ("direct", "chain_of_thought"):
        metrics, completions = read(tmp_path / "out" / name)
        assert metrics["num_problems"] == len(completions) == 2


@pytest.mark.slow
def test_direct_trains_on_answers_alone_with_the_flags_of_a_star_run(tiny, tmp_path):
    result = run_experiment(
        "direct",
        *tiny,
        "--iterations=3",
        "--temperature=0.7",
        "--kept_per_problem=1",
        "--max_samples_per_problem=4",
        "--check_working",
        "--objective=rpo",
        "--nll_weight=0.5",
        "--drop_lowest=0.2",
        "--verifier=none",
        f"--run_dir={tmp_path / 'run'}",
        "--n_train_samples=6",
        "--start_steps=2",
        "--sequence_length=64",
        "--batch_size=2",
        "--verbose=0",
        "--lora_rank=2",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(
        "Not used for one iteration on answers alone: --check_working, --drop_lowest, "
        "--iterations, --kept_per_problem, --max_samples_per_problem, --nll_weight, "
        "--objective, --temperature, --verifier."
    )
    assert not (tmp_path / "run" / "samples" / "iteration_0002").exists()
    samples = tmp_path / "run" / "samples" / "iteration_0001" / "direct.jsonl"
    direct = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(direct) == 6
    assert all(r["completion"] == r["answer"] for r in direct)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=x", "--split=moon"], "--split=moon is not a split of arithmetic"),
        (["--output=x", "--num_samples=2"], "1 without a --temperature"),
        ([], "--output is needed"),
        (["--output=x", "--task=math"], "needs --train_path and --eval_path"),
    ],
)
def test_bad_flags_are_named_in_a_line(arguments, message):
    result = run_experiment("evaluate", *arguments)
    assert result.returncode == 1
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert result.stdout == ""
