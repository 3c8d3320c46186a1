"""Parses commands of one script, `experiments.<script>`.

A program of its own, since scripts define the same flags.
"""

import importlib
import json
import sys

from absl import flags

from experiments.command_line import from_flags

script, *commands = sys.argv[1:]
module = importlib.import_module(f"experiments.{script}")
if not hasattr(module, "SETTINGS"):  # it has the flags of another script
    module = getattr(module, "star", None) or sys.modules["experiments.evaluate"]
for command in map(json.loads, commands):
    flags.FLAGS.unparse_flags()
    from_flags(flags.FLAGS([script, *command]), *module.SETTINGS)
    print(command)
