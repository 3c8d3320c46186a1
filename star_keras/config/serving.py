"""Settings of the server."""

import dataclasses
import ipaddress

from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingConfig(Settings):
    """Where the server listens, and its limits."""

    host: str = setting(
        "127.0.0.1", "Address to listen on. One of other machines needs a --token."
    )
    port: int = setting(
        8000, "Port to listen on. 0: a free one.", at_least=0, at_most=65535
    )
    token: str | None = setting(
        None, "Requests need the header `Authorization: Bearer TOKEN`."
    )
    model_name: str | None = setting(
        None, "Name of the model in requests. Default: the last part of the preset."
    )
    run_dir: str | None = setting(
        None,
        "Serve the newest trained iteration of this run, which may go on. The preset "
        "is its base model.",
        is_path=True,
    )
    slots: int = setting(64, "Completions decoded together.", at_least=1)
    max_length: int | None = setting(
        None,
        "Most tokens of a prompt and its completion together. Default: those of the "
        "model.",
        at_least=2,
    )
    max_new_tokens: int = setting(1024, "Most tokens of a completion.", at_least=1)
    max_waiting: int = setting(
        256, "Most completions that wait for a slot. Others get 429.", at_least=0
    )
    max_body_bytes: int = setting(
        4 * 2**20, "Most bytes of the body of a request.", at_least=1
    )
    request_seconds: float = setting(600.0, "Most seconds of a request.", above=0)
    shutdown_seconds: float = setting(
        30.0,
        "After SIGTERM, seconds for the requests that have been accepted.",
        at_least=0,
    )

    def check(self):
        if self.token is not None and not (self.token and self.token.isascii()):
            raise invalid("token", "ASCII text that is not empty", self.token)
        if self.token is None and not is_loopback(self.host):
            rule = "127.0.0.1 or localhost without a token"
            raise invalid("host", rule, self.host, "Set a token.")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
