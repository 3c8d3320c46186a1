"""Every flagfile is made of flags that experiments.star has."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGFILES = sorted((ROOT / "experiments" / "flagfiles").glob("*.flags"))

# In a process of its own: scripts define the same flags.
PARSE = """
import json, sys
from absl import flags
from experiments import star
print()
for path in sys.argv[1:]:
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["star", f"--flagfile={path}", "--run_dir=unused"])
    print(json.dumps([n for n in flags.FLAGS if flags.FLAGS[n].present]))
"""


def test_flagfiles_parse_and_set_what_they_name():
    result = subprocess.run(
        [sys.executable, "-c", PARSE, *FLAGFILES],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    found = result.stdout.splitlines()[-len(FLAGFILES) :]
    for path, present in zip(FLAGFILES, map(json.loads, found), strict=True):
        for line in path.read_text().splitlines():
            if line.startswith("--"):
                assert line[2:].partition("=")[0] in present, line


def test_there_is_one_for_each_experiment_of_the_paper():
    assert {path.stem for path in FLAGFILES} == {
        "arithmetic_cpu",
        "arithmetic_gptj",
        "cqa_gptj",
        "gsm8k_gptj",
    }
