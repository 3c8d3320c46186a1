"""Runs `experiments.generate` with its first argument as standard input.

A lone surrogate in it stands for a byte that is not UTF-8.
"""

import io
import runpy
import sys

sys.stdin = io.TextIOWrapper(
    io.BytesIO(sys.argv.pop(1).encode("utf-8", "surrogateescape")), "utf-8"
)
runpy.run_module("experiments.generate", run_name="__main__", alter_sys=True)
