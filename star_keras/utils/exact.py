"""Numbers as they are written."""

import fractions


def exact(value: float) -> fractions.Fraction:
    """The number that is written in a setting, not its nearest binary fraction.

    Args:
        value: The number.

    Example:
    ```python
    int(0.29 * 100)  # 28
    int(exact(0.29) * 100)  # 29
    ```
    """
    return fractions.Fraction(str(value))
