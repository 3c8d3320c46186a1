"""Scripts that run experiments, one a method."""

import os

# TensorFlow, which only feeds data, tells of GPUs that it does not need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from star_keras.memory import use_one_arena  # (before keras: selects its backend)

# Before the imports that start threads.
use_one_arena()
