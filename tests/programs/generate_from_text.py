"""Runs `experiments.generate` with its first argument as standard input."""

import io
import runpy
import sys

sys.stdin = io.StringIO(sys.argv.pop(1))
runpy.run_module("experiments.generate", run_name="__main__", alter_sys=True)
