"""The fields of a request: read once each, and none left over."""

import json
import numbers

from star_keras.serving.api_error import ApiError, bad_field
from star_keras.utils.records import is_text


def read_object(body: bytes) -> dict:
    """The JSON object of a body.

    Raises:
        ApiError: if it is none, or has numbers that JSON does not know.
    """
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        message = f"The body is no JSON: {type(error).__name__}: {error}."
        message = message.encode("utf-8", "backslashreplace").decode()
        raise ApiError(400, message[:300]) from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body is no JSON object. Expected `{...}`.")
    return value


def _refuse(constant):
    raise ValueError(f"{constant} is no number of JSON")


class Fields:
    """Reads the fields of a JSON object; `null` is the same as no field.

    Args:
        values: The object.

    Every method takes the name of a field and raises an `ApiError` that names it if its
    value is of another type or out of bounds.
    """

    def __init__(self, values: dict):
        self._left = {k: v for k, v in values.items() if v is not None}

    def raw(self, name: str, default=None):
        """The value as it is."""
        return self._left.pop(name, default)

    def number(self, name, default, *, at_least, at_most, above=None) -> float:
        """A finite number."""
        value = self.raw(name, default)
        rule = f"a number from {at_least} to {at_most}"
        if above is not None:
            rule = f"a number above {above}, at most {at_most}"
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if (
            not is_number
            or not at_least <= value <= at_most
            or (above is not None and value <= above)
        ):
            raise bad_field(name, rule, value)
        return float(value)

    def integer(self, name, default, *, at_least, at_most) -> int | None:
        """An integer; `default` may be `None`."""
        value = self.raw(name, default)
        if value is None:
            return None
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if not is_integer or not at_least <= value <= at_most:
            raise bad_field(name, f"an integer from {at_least} to {at_most}", value)
        return value

    def boolean(self, name, default=False) -> bool:
        """`true` or `false`."""
        value = self.raw(name, default)
        if not isinstance(value, bool):
            raise bad_field(name, "true or false", value)
        return value

    def text(self, name, default=None) -> str | None:
        """A text; `default` may be `None`."""
        value = self.raw(name, default)
        if value is not None and not is_text(value):
            raise bad_field(name, "a text of whole characters", value)
        return value

    def stop(self, most: int = 4) -> tuple[str, ...]:
        """The field `stop`: a text or a few texts."""
        value = self.raw("stop", [])
        texts = [value] if isinstance(value, str) else value
        if (
            not isinstance(texts, list)
            or len(texts) > most
            or not all(is_text(text) and text for text in texts)
        ):
            rule = f"a text or at most {most} texts, none of them empty"
            raise bad_field("stop", rule, value)
        return tuple(texts)

    def unsupported(self, **neutral: tuple):
        """Fields that are not supported, with the values that change nothing.

        Args:
            **neutral: These values by the names of the fields.
        """
        for name, values in neutral.items():
            value = self.raw(name)
            # `True` is no 1.
            known = [(type(x) is bool, x) for x in values]
            if value is not None and (type(value) is bool, value) not in known:
                shown = " or ".join(json.dumps(x) for x in values)
                rule = f"{shown}, since this server does not support it"
                raise bad_field(name, rule if shown else f"no field{rule}", value)

    def finish(self):
        """Refuse the fields that are left.

        Raises:
            ApiError: if there are any.
        """
        for name in self._left:
            shown = name.encode("utf-8", "backslashreplace").decode()[:100]
            raise ApiError(
                400,
                f"Unknown field `{shown}`. Expected the fields of OpenAI's interface. "
                "Leave it out.",
                param=shown,
            )
