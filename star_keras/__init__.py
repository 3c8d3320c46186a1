"""STaR on Keras 3 and JAX: a language model that teaches itself to reason.

Importing this package selects the JAX backend of Keras, and the CPU for JAX where
libtpu is installed without an accelerator.
"""

import os
import sys

from star_keras.utils.quiet import skip_absent_tpu

if "keras" in sys.modules:
    _backend = sys.modules["keras"].config.backend()
    if _backend != "jax":
        raise ImportError(
            "star_keras runs on the JAX backend of Keras, but Keras was already "
            f"imported with the backend {_backend!r}. Import star_keras before "
            "keras, or set the environment variable KERAS_BACKEND=jax."
        )
else:
    # The environment variable wins over the user's ~/.keras/keras.json.
    os.environ["KERAS_BACKEND"] = "jax"

# Before JAX is imported.
skip_absent_tpu()

__version__ = "0.2.0"
