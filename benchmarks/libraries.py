"""The start of a process: how it treats freed memory, then imports without noise."""

from star_keras.utils.memory import keep_freed_memory
from star_keras.utils.quiet import without_log_noise


def load_libraries(keep_memory: bool = True):
    """Import Keras, JAX and TensorFlow, without the log lines of their start.

    Args:
        keep_memory: Whether to keep freed memory, as the scripts of `experiments`
            do. It has to be said before the imports.
    """
    if keep_memory:
        keep_freed_memory()
    with without_log_noise():
        import star_keras  # noqa: F401  isort: skip  (selects the backend)
        import keras  # noqa: F401
        import keras_hub  # noqa: F401
        import tensorflow  # noqa: F401
        from absl import logging

    logging.set_verbosity(logging.WARNING)
