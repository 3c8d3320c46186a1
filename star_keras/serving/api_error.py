"""Errors that a client sees, in the form of OpenAI's."""

import reprlib

# Values in errors: however large or deep they are.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 100


class ApiError(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        message: Names the field, its rule, the value and the remedy.
        param: The field, if one is at fault.
        code: A word for programs, if there is one.
        retry_after: Seconds after which to try again, if that helps.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def body(self) -> dict:
        """The JSON of the answer."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the answer beside its type."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(self.retry_after)}


def bad_field(name: str, rule: str, value) -> ApiError:
    """An error that names a field, its rule and the value.

    Args:
        name: The field.
        rule: What it must be, behind "Expected".
        value: What was received.
    """
    # Half a character cannot be sent.
    received = _REPR.repr(value).encode("utf-8", "backslashreplace").decode()
    message = f"Invalid value for `{name}`. Expected {rule}. Received: {received}."
    return ApiError(400, message, param=name)
