"""Scripts that run experiments, one a method."""

import os

# TensorFlow, which only feeds data, tells of GPUs that it does not need.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from star_keras.memory import keep_freed_memory  # (before keras: selects its backend)

# Before the imports that start threads.
keep_freed_memory()
