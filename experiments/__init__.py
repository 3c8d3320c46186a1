"""Scripts that run experiments, one a method."""

import os

# TensorFlow, which only feeds data, tells of GPUs that it does not need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import star_keras  # noqa: F401  (before keras: selects its backend)
