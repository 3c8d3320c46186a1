"""Parses flagfiles of `experiments.star`; prints the flags that each has set.

A program of its own, since scripts define the same flags.
"""

import json
import sys

from absl import flags

from experiments import command_line, star

for path in sys.argv[1:]:
    flags.FLAGS.unparse_flags()
    rest = flags.FLAGS(["star", f"--flagfile={path}", "--run_dir=unused"])
    command_line.from_flags(rest, *star.SETTINGS)
    print(json.dumps([n for n in flags.FLAGS if flags.FLAGS[n].present]))
