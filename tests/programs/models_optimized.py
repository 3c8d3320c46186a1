"""Runs the tests that are its arguments with XLA's optimizations on."""

import sys

import jax
import pytest

jax.config.update("jax_disable_most_optimizations", False)
sys.exit(pytest.main(["-n0", "-q", *sys.argv[1:]]))
