from tests.conftest import run_experiment
from tests.storage.conftest import make_run


def test_a_run_is_checked_and_mended(tmp_path):
    run = make_run(tmp_path / "run")
    (run.path / "metrics.jsonl").unlink()
    done = run_experiment("check", f"--run_dir={run.path}")
    assert done.returncode == 1, done.stderr
    assert "metrics.jsonl: damaged: is not what the manifest says" in done.stdout
    assert "A run would go on with iteration 3, from its start." in done.stdout
    done = run_experiment("check", f"--run_dir={run.path}", "--mend")
    assert done.returncode == 0, done.stderr
    assert "mended: written anew" in done.stdout
    assert (run.path / "metrics.jsonl").exists()


def test_a_run_that_would_stop_at_its_start_does_not_go_on(tmp_path):
    run = make_run(tmp_path / "run")
    (run.path / "samples/iteration_0001/rationale.jsonl").unlink()
    done = run_experiment("check", f"--run_dir={run.path}", "--mend")
    assert done.returncode == 1, done.stderr
    assert "A run would not go on until the damage named above is m" in done.stdout
    assert "A run would go on" not in done.stdout


def test_a_directory_that_holds_nothing_of_a_run_is_named(tmp_path):
    done = run_experiment("check", f"--run_dir={tmp_path}")
    assert done.returncode == 1
    assert f"nothing in {tmp_path} is a run" in done.stderr
    assert done.stdout == ""


def test_a_directory_that_is_not_there_is_named(tmp_path):
    done = run_experiment("check", f"--run_dir={tmp_path / 'none'}")
    assert done.returncode == 1
    assert f"there is no directory {tmp_path / 'none'}" in done.stdout + done.stderr
