from tests.conftest import run_experiment
from tests.outer_loop.html_report.conftest import make_report_run


def test_runs_are_compared_in_one_page(tmp_path):
    for name in ("a", "b"):
        make_report_run(tmp_path / name)
    done = run_experiment(
        "report",
        f"--run_dir={tmp_path / 'a'}",
        f"--compare={tmp_path / 'b'}",
        f"--output={tmp_path / 'both.html'}",
    )
    assert done.returncode == 0, done.stderr
    assert f"The report is {tmp_path / 'both.html'}." in done.stdout
    assert "<h1>STaR: a and b</h1>" in (tmp_path / "both.html").read_text()


def test_damage_is_printed_and_ends_in_code_1(tmp_path):
    path = make_report_run(tmp_path / "run", texts=False)
    done = run_experiment("report", f"--run_dir={path}")
    assert done.returncode == 1, done.stderr
    assert "not shown: " in done.stdout and "problems.jsonl is missing" in done.stdout
    assert (path / "report.html").exists()


def test_a_report_replaces_a_report_and_nothing_else(tmp_path):
    path = make_report_run(tmp_path / "run")
    config = (path / "config.json").read_bytes()
    output = tmp_path / "new" / "page.html"
    for target, code in ((output, 0), (output, 0), (path / "config.json", 1)):
        done = run_experiment("report", f"--run_dir={path}", f"--output={target}")
        assert done.returncode == code, done.stderr
    assert "`output`. Expected a new file, or a report that is replaced" in done.stderr
    assert (path / "config.json").read_bytes() == config


def test_a_directory_of_no_run_is_named(tmp_path):
    done = run_experiment("report", f"--run_dir={tmp_path}")
    assert done.returncode == 1
    assert "Expected the directory of a run" in done.stderr
    assert "Traceback" not in done.stderr
