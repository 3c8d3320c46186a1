"""The rule of stop strings and other sequences of texts."""

from collections.abc import Sequence

from star_keras.utils.errors import invalid
from star_keras.utils.records import is_text


def check_texts(name: str, value, example: str, remedy: str = ""):
    """Check a sequence of texts, none of them empty.

    Args:
        name: The argument, for the error.
        value: Its value. A single text is no sequence.
        example: A valid value, for the error.
        remedy: See `invalid`.

    Raises:
        ValueError: if it is anything else, or UTF-8 cannot encode a text.
    """
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not is_sequence or not all(is_text(text) and text for text in value):
        rule = f"a sequence of texts that are not empty, e.g. `{example}`"
        raise invalid(name, rule, value, remedy)


def check_stop(stop: Sequence[str], remedy: str = ""):
    """Check stop strings, see `check_texts`."""
    check_texts("stop", stop, '("\\nQ:",)', remedy)
