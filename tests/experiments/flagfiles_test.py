"""Every flagfile is made of flags that experiments.star has."""

from pathlib import Path

import pytest
from absl import flags

from experiments import common, star  # noqa: F401  (they define the flags)

FLAGFILES = sorted((Path(star.__file__).parent / "flagfiles").glob("*.flags"))


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_flagfile_parses_and_sets_what_it_names(path):
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    values = flags.FlagValues()
    for name in flags.FLAGS:
        values[name] = flags.FLAGS[name]
    saved = flags.FLAGS.flag_values_dict()
    try:
        values(["star", f"--flagfile={path}"])
        for line in lines:
            name, _, value = line.removeprefix("--").partition("=")
            assert values[name].present, name
            if value and not isinstance(values[name].value, list):
                assert type(values[name].value)(value) == values[name].value
        assert values["iterations"].value >= 3
    finally:
        for name, value in saved.items():
            flags.FLAGS[name].value = value
            flags.FLAGS[name].present = 0


def test_there_is_one_for_each_experiment_of_the_paper():
    assert {path.stem for path in FLAGFILES} == {
        "arithmetic_cpu",
        "arithmetic_gptj",
        "cqa_gptj",
        "gsm8k_gptj",
    }
