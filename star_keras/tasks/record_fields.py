"""Fields of a record: texts and numbers; `null` and blank mean absent."""

import decimal
import math
import unicodedata

import numpy as np

from star_keras.tasks.read_number import number_text
from star_keras.utils.errors import invalid


def optional_text(record: dict, name: str) -> str | None:
    """The text of a field, a number as its shortest decimal.

    Args:
        record: A JSON object.
        name: The field.

    Returns:
        The text, or `None` if the field is missing, `null` or blank.

    Raises:
        ValueError: if it is neither a text nor a finite number.
    """
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return value if _is_visible(value) else None
    is_number = isinstance(value, int | float | decimal.Decimal)
    is_number = is_number and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise invalid(name, "a text or a finite number", value, "Put it in quotes.")
    return number_text(value)


def shortest_float(value: np.floating) -> float:
    """The Python float with the text of a shorter one: 0.1 for `np.float32(0.1)`.

    Args:
        value: A float16, float32 or float64.
    """
    return float(str(value))


def exact_row(row: dict, schema) -> dict:
    """A row of Arrow, with floats of 16 and 32 bits as their shortest decimals.

    Args:
        row: Its Python values.
        schema: Its `pyarrow.Schema`.
    """
    return _exact_parts(row, schema)


def _exact(value, kind):
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_exact(part, kind.value_type) for part in value]
    if isinstance(value, dict):
        # Datasets have objects in columns of JSON, which is text in Arrow.
        return _exact_parts(value, kind if str(kind).startswith("struct") else ())
    shorter = {"float": np.float32, "halffloat": np.float16}.get(str(kind))
    if value is None or shorter is None:
        return value
    return shortest_float(shorter(value))


def _exact_parts(parts, fields):
    kinds = {field.name: field.type for field in fields}
    return {name: _exact(part, kinds.get(name)) for name, part in parts.items()}


def _is_visible(text):
    """Whether there is more than blanks and marks without a width (U+200B)."""
    return any(
        not letter.isspace() and unicodedata.category(letter) != "Cf" for letter in text
    )


def required_text(record: dict, name: str) -> str:
    """The text of a field that must be there; see `optional_text`.

    Args:
        record: A JSON object.
        name: The field.

    Raises:
        ValueError: if it is missing, `null`, blank, or neither a text nor a number.
    """
    text = optional_text(record, name)
    if text is None:
        raise missing_text(record, name)
    return text


def missing_text(record: dict, name: str, remedy: str = "") -> ValueError:
    """The error of a field that is missing, `null` or blank.

    Args:
        record: A JSON object.
        name: The field.
        remedy: A further remedy.
    """
    if name in record:
        remedy = f"Give it one, or leave the line out. {remedy}".strip()
        return invalid(name, "a text that is not blank", record[name], remedy)
    return ValueError(
        f"Missing {name!r}. Expected a text or a number. Received the fields "
        f"{sorted(record)}. Add it, or leave the line out. {remedy}".strip()
    )
