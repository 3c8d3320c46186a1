"""Dataclasses from JSON: every value is checked against the type of its field."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable


def make_record(cls: type, values: dict, where: str):
    """A dataclass object from a JSON object with exactly its fields.

    Args:
        cls: A dataclass with fields of the types `int` (not negative), `float`
            (finite), `bool`, `str`, `Literal` of strings, and `None` beside one.
        values: The JSON object.
        where: File and line, for the error.

    Raises:
        ValueError: if a field is missing or unknown, a value is not of the type
            of its field, or the class refuses the values; names `where`, the
            field, its rule and the value.
    """
    checks = _checks(cls)
    if values.keys() != checks.keys():
        unknown, missing = values.keys() - checks.keys(), checks.keys() - values.keys()
        raise ValueError(
            f"{where}: unknown fields {sorted(unknown)}, missing fields "
            f"{sorted(missing)}. Expected {sorted(checks)}. The file is damaged, or "
            "of another version."
        )
    for name, (rule, fits) in checks.items():
        if not fits(values[name]):
            raise ValueError(
                f"{where}: invalid value for field `{name}`. Expected {rule}. "
                f"Received: {values[name]!r}."
            )
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def is_text(value) -> bool:
    """Whether a value is a string that UTF-8 can encode: has no lone surrogate."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_count(value) -> bool:
    """Whether a value is an integer of at least 0, and no `bool`."""
    return type(value) is int and value >= 0


def is_share(value) -> bool:
    """Whether a value is a number from 0 to 1, and no `bool`."""
    return type(value) in (int, float) and 0 <= value <= 1


@functools.cache
def _checks(cls) -> dict[str, tuple[str, Callable]]:
    """Rule and test of each field."""
    hints = typing.get_type_hints(cls)
    return {field.name: _check(hints[field.name]) for field in dataclasses.fields(cls)}


def _check(hint):
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        rule = "one of " + ", ".join(map(repr, choices))
        return rule, lambda value: isinstance(value, str) and value in choices
    if isinstance(hint, types.UnionType):
        (kind,) = set(typing.get_args(hint)) - {type(None)}
        rule, fits = _check(kind)
        return f"{rule}, or null", lambda value: value is None or fits(value)
    return {
        int: ("an integer of at least 0", is_count),
        float: (
            "a finite number",
            lambda value: type(value) in (int, float) and math.isfinite(value),
        ),
        bool: ("true or false", lambda value: type(value) is bool),
        str: ("a string that UTF-8 can encode", is_text),
    }[hint]
