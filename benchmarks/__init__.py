"""Speed and memory, measured by hand and never by the tests."""

import os

# TensorFlow only feeds data here: its log lines are of no use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
