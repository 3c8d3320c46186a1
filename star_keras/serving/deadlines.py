"""When requests are given up: after their seconds, or when the server ends."""

import asyncio
import contextlib

from star_keras.serving.api_error import ApiError


class Deadlines:
    """The deadlines of the requests under way. Belongs to one event loop.

    Args:
        seconds: Most seconds of a request, for the error.

    Attributes:
        ended: Whether `end` was called.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._timeouts: dict[asyncio.Timeout, float] = {}
        self.ended = False

    @contextlib.asynccontextmanager
    async def until(self, deadline: float, more: float = 0.0):
        """A context that ends in time.

        Args:
            deadline: Time of the event loop.
            more: Seconds behind the deadline, or behind `end`.

        Raises:
            TimeoutError: beyond its time.
        """
        if self.ended:
            deadline = asyncio.get_running_loop().time()
        async with asyncio.timeout_at(deadline + more) as timeout:
            self._timeouts[timeout] = more
            try:
                yield
            finally:
                del self._timeouts[timeout]

    def end(self):
        """Let the time of all contexts be over, of later ones too."""
        self.ended = True
        now = asyncio.get_running_loop().time()
        for timeout, more in self._timeouts.items():
            if not timeout.expired():
                timeout.reschedule(min(timeout.when(), now + more))

    def error(self) -> ApiError:
        """What a client is told whose time is over."""
        if self.ended:
            return stopping()
        message = f"The request took more than {self._seconds:g} seconds."
        return ApiError(504, f"{message} Ask for fewer tokens.", code="timeout")


def stopping() -> ApiError:
    """The error of a request that the server does not answer, since it ends."""
    return ApiError(503, "The server is stopping.", code="stopping", retry_after=10)
