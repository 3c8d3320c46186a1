"""STaR on Keras 3 and JAX: a language model that teaches itself to reason.

Importing this package selects the JAX backend of Keras.
"""

import os
import sys

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

__version__ = "0.1.0"
