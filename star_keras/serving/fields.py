"""The fields of a request: read once each, and none left over."""

import json

from star_keras.serving.api_error import ApiError, bad_field
from star_keras.utils.records import is_text
from star_keras.utils.settings import Rule, checked


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

    def number(self, name, default, **rule) -> float:
        """A finite number within the bounds of a `Rule`."""
        return self._checked(name, float, default, rule)

    def integer(self, name, default, **rule) -> int | None:
        """An integer within the bounds of a `Rule`; `default` may be `None`."""
        return self._checked(name, int, default, rule)

    def _checked(self, name, kind, default, rule):
        value = self.raw(name, default)
        if value is None:
            return None
        try:
            return checked(name, kind, value, **rule)
        except ValueError:
            raise bad_field(name, Rule(help="", **rule).describe(kind), value) from None

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
