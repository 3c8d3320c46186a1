"""The server: an address, signals, and the end."""

import asyncio
import contextlib
import signal

import uvicorn

from star_keras.serving.app import make_app
from star_keras.serving.service import Service
from star_keras.serving.streaming import LAST_SECONDS

_POLL_SECONDS = 0.1


class Server(uvicorn.Server):
    """Serves until SIGTERM or SIGINT, or until the engine fails.

    After a signal it refuses requests, waits until the accepted ones are answered, and
    ends. Those that take more than `shutdown_seconds` are answered with an error. A
    second signal ends the process at once.

    Args:
        service: What answers.
    """

    def __init__(self, service: Service):
        self.service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                make_app(service),
                host=service.config.host,
                port=service.config.port,
                lifespan="on",
                log_level="warning",
                access_log=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=LAST_SECONDS,
            )
        )

    @property
    def url(self) -> str:
        """Where it listens, once it does."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets=None):
        self._loop = asyncio.get_running_loop()
        self._watch = self._loop.create_task(self._end_with_engine())
        await super().startup(sockets)
        if self.started:
            print(f"{self.service.name} is served at {self.url}/v1", flush=True)

    def handle_exit(self, sig, frame):
        if self.service.draining:
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        elif self._loop is None:
            self.should_exit = self.force_exit = True
        else:
            self.drain()

    def drain(self):
        """End as after a signal. Any thread may call it."""
        self.service.draining = True
        # The loop may have ended already.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._start_drain)

    def _start_drain(self):
        self._watch.cancel()
        self._watch = self._loop.create_task(self._end_when_done())

    async def _end_when_done(self):
        deadline = self._loop.time() + self.service.config.shutdown_seconds
        while self.service.unfinished and self._loop.time() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
        self.service.end()
        self.should_exit = True

    async def _end_with_engine(self):
        while self.service.failure is None:
            await asyncio.sleep(_POLL_SECONDS)
        self.should_exit = True


def serve(service: Service):
    """Serve until SIGTERM, SIGINT or a failure. Call in the main thread.

    Args:
        service: What answers.

    Raises:
        RuntimeError: if the engine has failed.
        SystemExit: if the address cannot be used.
    """
    server = Server(service)
    server.run()
    if service.failure is not None:
        raise RuntimeError("The engine has failed.") from service.failure
