"""Runs the tests that are its arguments with XLA's optimizations on."""

import os
import sys

os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
os.environ["XLA_FLAGS"] = ""

import jax
import pytest

assert not jax.config.read("jax_disable_most_optimizations")
sys.exit(pytest.main(["-n0", "-q", *sys.argv[1:]]))
