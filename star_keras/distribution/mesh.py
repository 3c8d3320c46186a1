"""Sizes of a mesh from a string like `"batch:2,model:4"`."""

from star_keras.utils.errors import invalid


def parse_mesh(mesh: str) -> dict[str, int]:
    """Axis sizes from a mesh string.

    Args:
        mesh: `"batch:N,model:N"` in any order. A missing axis has the size 1.

    Returns:
        Axis sizes like `{"batch": 2, "model": 4}`, in this order.

    Raises:
        ValueError: if the string is malformed.

    Example:
    ```python
    parse_mesh("model:8")  # {"batch": 1, "model": 8}
    ```
    """
    axes = {"batch": 1, "model": 1}
    seen = set()
    for part in mesh.split(","):
        name, _, size = part.strip().partition(":")
        if name not in axes or name in seen or not size.isdecimal() or int(size) < 1:
            raise invalid("mesh", 'axes and their sizes like "batch:2,model:4"', mesh)
        seen.add(name)
        axes[name] = int(size)
    return axes
