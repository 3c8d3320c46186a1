"""Every flagfile is made of flags that experiments.star has."""

import json

from tests import forks
from tests.forks import ROOT

FLAGFILES = sorted((ROOT / "experiments" / "flagfiles").glob("*.flags"))


def test_flagfiles_parse_and_set_what_they_name():
    result = forks.run("parse_flagfiles", *FLAGFILES)
    assert result.returncode == 0, result.stderr
    found = result.stdout.splitlines()[-len(FLAGFILES) :]
    for path, present in zip(FLAGFILES, map(json.loads, found), strict=True):
        for line in path.read_text().splitlines():
            if line.startswith("--"):
                name = line[2:].partition("=")[0]
                assert {name, name.removeprefix("no")} & set(present), line
