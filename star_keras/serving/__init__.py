"""An HTTP server of a model, with the interface of OpenAI."""

from star_keras.serving.server import serve
from star_keras.serving.service import Service

__all__ = ["Service", "serve"]
