"""Errors of invalid arguments, all of one form."""


def invalid(name: str, rule: str, value, remedy: str = "") -> ValueError:
    """An error that names an argument, its rule, the value and the remedy.

    Args:
        name: The argument.
        rule: What it must be, behind "Expected".
        value: What was received.
        remedy: A sentence on what to do, if the rule does not say it.

    Returns:
        The error, to be raised.
    """
    message = (
        f"Invalid value for argument `{name}`. Expected {rule}. "
        f"Received: {name}={value!r}."
    )
    return ValueError(f"{message} {remedy}".rstrip())
