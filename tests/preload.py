"""The libraries that forks find imported."""

# ruff: noqa: E402
import gc

# A search for garbage among the objects of the imports costs a second and finds none.
gc.disable()

# Freed memory is kept, and the backend selected, before the other imports.
import experiments  # noqa: F401  isort: skip

import star_keras.callbacks
import star_keras.planning
import star_keras.testing  # noqa: F401

gc.freeze()
gc.enable()
