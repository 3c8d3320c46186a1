"""Scripts that run experiments, one a method."""

import os

# TensorFlow only feeds data here: its log lines are of no use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from star_keras.utils.memory import keep_freed_memory

# Before the imports that start threads.
keep_freed_memory()
