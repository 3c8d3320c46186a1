"""What differs between two values of JSON."""

from collections.abc import Iterator


def differences(name: str, there, here) -> Iterator[str]:
    """Descriptions of what differs, also within values such as an optimizer's.

    Args:
        name: What the values are. Empty for dicts, whose keys are names.
        there: A value of JSON.
        here: Another one.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            inner = f"{name}.{key}" if name else key
            yield from differences(inner, there.get(key), here.get(key))
    elif there != here:
        yield f"{name}: {there!r} there, {here!r} here"
