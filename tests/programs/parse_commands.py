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
classes = getattr(module, "SETTINGS", None) or [
    value
    for value in vars(module).values()
    if isinstance(value, type) and value.__module__ == module.__name__
]
if not classes:  # it has the flags of another script
    module = getattr(module, "star", None) or sys.modules["experiments.evaluate"]
    classes = module.SETTINGS
for command in map(json.loads, commands):
    flags.FLAGS.unparse_flags()
    from_flags(flags.FLAGS([script, *command]), *classes)
    print(command)
