"""The command `star-keras`."""

import configparser

import pytest

from experiments.__main__ import commands, with_flagfiles
from tests import forks
from tests.conftest import ROOT


def star_keras(*arguments):
    return forks.run("experiments", *arguments)


def test_every_script_is_a_command_with_a_summary():
    scripts = {
        path.stem
        for path in (ROOT / "experiments").glob("*.py")
        if "run_main(main)" in path.read_text()
    }
    found = commands()
    assert {module for module, _ in found.values()} == {
        f"experiments.{script}" for script in scripts
    }
    assert {"run", "evaluate", "convert", "plan", "report", "check"} <= found.keys()
    assert all(summary.endswith((".", ":", "?")) for _, summary in found.values())


def test_flagfiles_of_the_package_have_short_names(tmp_path):
    (path,) = with_flagfiles(["--flagfile=arithmetic_cpu"])
    shipped = ROOT / "experiments" / "flagfiles" / "arithmetic_cpu.flags"
    assert path == f"--flagfile={shipped}"
    arguments = ["-flagfile", "elsewhere/arithmetic_cpu.flags", "--seed=1"]
    assert with_flagfiles(arguments) == [path, "--seed=1"]
    own = tmp_path / "arithmetic_cpu.flags"
    own.write_text("--seed=1\n")
    for arguments in ([f"--flagfile={own}"], ["--flagfile=mine.flags"], ["--seed=1"]):
        assert with_flagfiles(arguments) == arguments


def test_a_command_runs_as_its_script(tmp_path):
    result = star_keras("check", f"--run_dir={tmp_path / 'none'}")
    assert result.returncode == 1
    assert "--run_dir: there is no directory" in result.stderr + result.stdout
    result = star_keras("report", "--rundir=x")
    assert "Did you mean: run_dir" in result.stderr + result.stdout


def test_help_lists_commands_and_an_unknown_one_is_named():
    result = star_keras("--help")
    assert result.returncode == 0
    for name, (_, summary) in commands().items():
        assert f"  {name} " in result.stdout and summary in result.stdout
    result = star_keras("evalute")
    assert result.returncode == 2
    assert "Unknown command 'evalute'. Did you mean 'evaluate'?" in result.stderr


@pytest.mark.parametrize("package", ["experiments", "star_keras"])
def test_the_wheel_has_the_files_of_the_package(package):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert (
        "star-keras = experiments.__main__:main"
        in (setup["options.entry_points"]["console_scripts"])
    )
    found = setup["options.package_data"].items()
    listed = {
        path
        for name, patterns in found
        for pattern in patterns.split()
        for path in ROOT.joinpath(*name.split(".")).glob(pattern)
    }
    there = {
        path
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert there - listed == set()
    for path in (ROOT / package).rglob("*.py"):  # else setuptools does not find it
        assert (path.parent / "__init__.py").exists(), path
