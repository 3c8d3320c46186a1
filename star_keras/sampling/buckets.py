"""Lengths rounded up, so that few shapes are compiled."""


def bucket(length: int, least: int, sizes_per_octave: int = 2) -> int:
    """The length, rounded up to one of few sizes.

    Args:
        length: Number of tokens.
        least: Smallest size, a power of two.
        sizes_per_octave: Number of sizes from one power of two to the next.

    Example:
    ```python
    [bucket(n, 32) for n in (1, 33, 50, 65)]  # [32, 48, 64, 96]
    ```
    """
    octave = least
    while octave * 2 < length:
        octave *= 2
    step = octave // sizes_per_octave
    return max(least, -(-length // step) * step)
