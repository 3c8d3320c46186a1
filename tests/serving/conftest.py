"""A server in a thread, and clients of it."""

import contextlib
import threading
import time

import openai
import pytest

from star_keras.config import ServingConfig
from star_keras.models import load_causal_lm
from star_keras.serving import Service
from star_keras.serving.server import Server

# Answered with a scratchpad of about 40 tokens.
PROMPT = "Input:\n3 5 + 9 1\nTarget:\n"


def wait_for(condition, seconds=120):
    """Wait until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def running_server(model, *, chat=None, **settings):
    """A `Server` of a model that listens on a free port."""
    config = ServingConfig(port=0, **{"slots": 4, "max_new_tokens": 200} | settings)
    server = Server(Service(model, config, name="tiny", chat=chat))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert server.started
        yield server
    finally:
        if server.started:
            server.drain()
        thread.join(120)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def model():
    return load_causal_lm("arithmetic_base")


@pytest.fixture(scope="module")
def server(model):
    with running_server(model) as server:
        yield server


@pytest.fixture(scope="session")
def connect():
    """Makes the official client of a server."""
    clients = []

    def connect(server, token="unused", **kwargs):
        kwargs = {"max_retries": 0, "timeout": 60} | kwargs
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, **kwargs)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def client(server, connect):
    return connect(server)
