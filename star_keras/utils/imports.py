"""Import of the user's own callables by name."""

import importlib

from star_keras.utils.errors import invalid


def import_callable(argument: str, name: str, rule: str):
    """The callable of a name like `"package.module:name"`.

    Args:
        argument: Name of the argument, for the error.
        name: The name.
        rule: What the argument must be, see `invalid`.

    Raises:
        ValueError: if it cannot be imported, or is not callable.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        remedy = f"The import failed: {error}."
        raise invalid(argument, rule, name, remedy) from error
    if not callable(found):
        raise invalid(argument, rule, name, f"It is {found!r}, and not callable.")
    return found
