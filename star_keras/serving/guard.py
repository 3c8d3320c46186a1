"""Who may ask, and the count of requests: a layer around the routes."""

import hmac
import logging
import time

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse

from star_keras.config.serving import is_loopback
from star_keras.serving.api_error import ApiError
from star_keras.serving.service import Service


class Guard:
    """Checks token and host, turns errors into answers, and counts them.

    `/health` needs no token.

    Args:
        app: The ASGI application inside.
        service: Its token and metrics are used.
        paths: The known paths; others are counted as one.
    """

    def __init__(self, app, service: Service, paths):
        self._app, self._service, self._paths = app, service, paths

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        started, status = time.monotonic(), None

        async def counting_send(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, counting_send)
        except ApiError as error:
            await error_response(error)(scope, receive, counting_send)
        except Exception:
            # The answer is sent already.
            logging.exception("A request has failed.")
        finally:
            metrics = self._service.metrics
            # 499: the client was gone before an answer.
            metrics.requests.labels(path, status or 499).inc()
            metrics.seconds.labels(path).observe(time.monotonic() - started)

    def _check(self, scope):
        headers, token = Headers(scope=scope), self._service.config.token
        if token is None:
            # A page in a browser may reach this machine by a name of its own.
            if not is_loopback(_host_name(headers.get("host", ""))):
                raise ApiError(
                    403,
                    "Invalid header `Host`. Expected localhost or 127.0.0.1. Start the "
                    "server with a token to use other names.",
                )
        elif scope["path"] != "/health":
            scheme, _, given = headers.get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(given.lstrip(" ").encode(), token.encode())
            # Schemes have no case (RFC 9110).
            if scheme.lower() != "bearer" or not is_right:
                raise ApiError(
                    401,
                    "Missing or wrong token. Expected the header `Authorization: "
                    "Bearer TOKEN` with the token of the server.",
                    code="invalid_api_key",
                )


def _host_name(host):
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def error_response(error: ApiError) -> JSONResponse:
    """The answer of an error."""
    return JSONResponse(error.body, error.status, headers=error.headers)


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request of JSON.

    Args:
        request: The request.
        most: Most bytes.

    Raises:
        ApiError: if it is of another type, or larger.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        rule = "Invalid header `Content-Type`. Expected application/json. Received: "
        raise ApiError(415, f"{rule}{kind!r}.")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise ApiError(
                413,
                f"The body has more than {most} bytes, the limit. Send fewer prompts.",
                code="body_too_large",
            )
    return bytes(body)
