"""Every flagfile is made of flags that experiments.star has."""

from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import common, star  # noqa: F401  (they define the flags)

FLAGFILES = sorted((Path(star.__file__).parent / "flagfiles").glob("*.flags"))


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_flagfile_parses_and_sets_what_it_names(path):
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    with flagsaver.flagsaver():
        flags.FLAGS(["star", f"--flagfile={path}", "--run_dir=unused"])
        for line in lines:
            name = line.removeprefix("--").partition("=")[0]
            assert flags.FLAGS[name].present, name
        assert flags.FLAGS.iterations >= 3


def test_there_is_one_for_each_experiment_of_the_paper():
    assert {path.stem for path in FLAGFILES} == {
        "arithmetic_cpu",
        "arithmetic_gptj",
        "cqa_gptj",
        "gsm8k_gptj",
    }
