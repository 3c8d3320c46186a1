from tests.conftest import run_experiment
from tests.outer_loop.comparison_test import make_run


def test_a_comparison_is_printed_and_written(tmp_path):
    paths = [
        make_run(tmp_path / f"{name}_{seed}", [0.1, 0.5], seed=seed)
        for name in ("one", "two")
        for seed in (0, 1)
    ]
    output = tmp_path / "out"
    done = run_experiment(
        "compare", f"--run_dirs={','.join(paths)}", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    again = run_experiment(
        "compare", f"--run_dirs={','.join(paths)}", f"--output={output}"
    )
    assert again.returncode == 0, again.stderr
    assert (output / "comparison.md").read_text() in done.stdout
    assert "| two | 0, 1 | 1 | 50.0% ± 0.0 |" in done.stdout
    assert (output / "comparison.png").exists()


def test_what_cannot_be_compared_is_named_without_a_traceback(tmp_path):
    done = run_experiment("compare", f"--run_dirs={tmp_path}", f"--output={tmp_path}")
    assert done.returncode == 1
    assert "Expected the directory of a run" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_experiment("compare", f"--output={tmp_path}")
    assert "--run_dirs is needed" in done.stderr + done.stdout
