"""Plans through the command line of experiments.plan."""

import json

import pytest

from tests.conftest import run_experiment

CONFIG = {
    "model_type": "gptj",
    "activation_function": "gelu_new",
    "tie_word_embeddings": False,
    "vocab_size": 512,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 256,
    "rotary_dim": 16,
    "n_positions": 512,
}
PARAMETERS = 1_839_616


def plan_small(directory, *arguments):
    """The estimates of a small GPT-J, and what the script printed."""
    pytest.importorskip("libtpu")
    (directory / "config.json").write_text(json.dumps(CONFIG))
    done = run_experiment(
        "plan",
        f"--preset={directory}",
        "--topology=v5e-4",
        "--mesh=batch:2,model:2",
        "--dtype=mixed_bfloat16",
        "--batch_size=4",
        f"--output={directory / 'plan.json'}",
        *arguments,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((directory / "plan.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return plan_small(
        tmp_path_factory.mktemp("plan"),
        "--sequence_length=128",
        "--prefix_length=100",
        "--max_new_tokens=32",
        "--sample_batch_size=16",
    )


@pytest.mark.slow
def test_memory_is_that_of_weights_and_moments_split(plan):
    estimates, _ = plan
    memory = estimates["train"]["memory"]
    # Weights and two moments in float32, over two of the four chips.
    assert memory["arguments"] == pytest.approx(3 * 4 * PARAMETERS / 2, rel=0.02)
    parts = sum(memory[n] for n in ("arguments", "results", "temporary", "program"))
    assert memory["needed"] == parts
    assert memory["available"] == pytest.approx(15.75 * 2**30, rel=1e-6)
    # Sampling reads weights of two bytes; training's stay where they are.
    held = estimates["decode"]["memory"]["held for training"]
    assert held == pytest.approx(memory["arguments"], rel=0.01)
    assert estimates["decode"]["memory"]["arguments"] > 2 * PARAMETERS / 2


@pytest.mark.slow
def test_estimates_are_above_their_bounds(plan):
    estimates, _ = plan
    for name in ("train", "prefill", "decode"):
        found = estimates[name]
        assert found["fits"]
        assert found["work_seconds"] > found["flops_bound_seconds"] > 0
        assert found["work_seconds"] >= found["bandwidth_bound_seconds"] > 0
        assert found["tokens_per_second"] == pytest.approx(
            found["tokens"] / (found["work_seconds"] + found["exchange_seconds"])
        )
    assert estimates["train"]["tokens"] == 4 * 128
    assert estimates["decode"]["tokens"] == 16


@pytest.mark.slow
def test_no_weight_matrix_moves_between_devices_in_a_decoding_step(plan):
    estimates, _ = plan
    smallest_matrix = 256 * 256
    assert 0 < estimates["decode"]["largest_collective"] < smallest_matrix
    # Hidden states: after the embedding, and after each block.
    assert estimates["decode"]["collectives"]["all-reduce"]["times"] == 3


@pytest.mark.slow
def test_report_names_estimates_as_such(plan):
    _, report = plan
    assert "nothing was run" in report
    assert report.count("step, estimated") == 3
    assert report.count("GiB: fits") == 3


@pytest.mark.slow
def test_what_does_not_fit_is_said_with_what_would_help(tmp_path):
    estimates, report = plan_small(
        tmp_path, "--sequence_length=1000", "--batch_size=8192", "--programs=train"
    )
    assert not estimates["train"]["fits"]
    # Scores of attention in float32: half of the rows, and two of four heads, on a
    # chip. The length is no multiple of 128, so that no kernel saves them, and too
    # short for blocks of queries.
    scores = 4 * 4096 * 2 * 1000**2
    assert estimates["train"]["memory"]["needed"] > scores
    assert "DOES NOT FIT" in report
    assert "what would help: --gradient_checkpointing; " in report
    assert "tokens/s" not in report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "size"),
    # The gradients of parts are summed in float32.
    [([], 2), (["--zero", "--gradient_accumulation_steps=2"], 4)],
)
def test_each_chip_sends_its_share_of_the_gradients_once_to_the_other_slice(
    tmp_path, arguments, size
):
    estimates, report = plan_small(
        tmp_path,
        "--mesh=slice:2,batch:2,model:2",
        *arguments,
        "--batch_size=8",
        "--sequence_length=128",
        "--programs=train",
    )
    assert "of 2 slices of v5e-4 (8 x TPU v5 lite)" in report
    sent = estimates["train"]["collectives"]["between slices"]["bytes"]
    # A quarter of them. Vectors are not split.
    assert sent == pytest.approx(size * PARAMETERS / 4, rel=0.02)
    assert "between slices     " in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mesh=batch:1,model:8"], "--topology is needed."),
        (["--suggest", "--topology=v5e-8"], "--suggest needs --n_train_samples"),
        (["--topology=v5e-8"], "--mesh is needed for TPUs"),
        (
            ["--topology=h100-80gb", "--preset=gpt_j_6b", "--mesh=batch:1,model:2"],
            "`mesh`. Expected none: h100-80gb is one device",
        ),
        (
            [
                *("--topology=h100-80gb", "--preset=gpt_j_6b", "--batch_size=8"),
                *("--gradient_checkpointing", "--gradient_accumulation_steps=3"),
            ],
            "`gradient_accumulation_steps`. Expected a divisor of batch_size=8",
        ),
        (
            ["--suggest", "--topology=v5e-8", "--mesh=slice:2,batch:8"],
            "--suggest is for one slice",
        ),
        (
            ["--topology=rtx4090-24gb", "--preset=gpt_j_6b"],
            "`gradient_checkpointing`. Expected True for GPUs",
        ),
        # A flagfile of experiments.star is taken.
        (
            [
                "--flagfile=experiments/flagfiles/cqa_gptj.flags",
                "--topology=v3-8",
                "--programs=all",
            ],
            "`programs`. Expected train, sample, or both",
        ),
    ],
)
def test_flags_are_checked(arguments, message):
    done = run_experiment("plan", *arguments)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout


@pytest.mark.slow
def test_memory_of_training_grows_with_the_length_of_the_rows(tmp_path):
    short, long = (
        plan_small(tmp_path, f"--sequence_length={length}", "--programs=train")[0]
        for length in (512, 2048)
    )
    # All scores would be 16 times as many.
    temporary = [plan["train"]["memory"]["temporary"] for plan in (short, long)]
    assert temporary[1] < 5 * temporary[0]


def suggest_small(directory, *arguments):
    """The suggested flagfile for a small GPT-J."""
    (directory / "config.json").write_text(json.dumps(CONFIG))
    path = directory / "suggested.flags"
    done = run_experiment(
        "plan",
        "--suggest",
        f"--preset={directory}",
        "--dtype=mixed_bfloat16",
        "--n_train_samples=1000",
        "--sequence_length=128",
        "--max_new_tokens=32",
        f"--output={path}",
        *arguments,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return path


@pytest.mark.slow
def test_a_suggested_flagfile_plans_as_the_suggestion_said(tmp_path):
    pytest.importorskip("libtpu")
    path = suggest_small(tmp_path, "--topology=v5e-4")
    text = path.read_text()
    done = run_experiment(
        "plan",
        f"--flagfile={path}",
        "--topology=v5e-4",
        f"--output={tmp_path / 'plan.json'}",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    plan = json.loads((tmp_path / "plan.json").read_text())
    step = plan["train"]["work_seconds"] + plan["train"]["exchange_seconds"]
    (line,) = [x for x in text.splitlines() if x.startswith("# training step")]
    assert f"{step:.4g} s" in line
    assert all(found["fits"] for found in list(plan.values())[1:])


def test_a_suggestion_for_a_gpu_says_that_it_was_not_compiled(tmp_path):
    text = suggest_small(tmp_path, "--topology=h100-80gb").read_text()
    assert "Not compiled" in text
    assert "\n--mesh=batch:1,model:1\n--nozero\n--gradient_checkpointing\n" in text
    assert "promised" in text and "compiled   " not in text
