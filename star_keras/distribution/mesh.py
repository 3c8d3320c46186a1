"""Sizes of a mesh from a string like `"batch:2,model:4"`."""


def parse_mesh(mesh: str) -> dict[str, int]:
    """Axis sizes of a mesh string, e.g. `{"batch": 2, "model": 4}`.

    Raises:
        ValueError: if the string is not `batch:N,model:N`, in either order,
            with one of the two left out or not.
    """
    axes = {"batch": 1, "model": 1}
    seen = set()
    for part in mesh.split(","):
        name, _, size = part.strip().partition(":")
        if name not in axes or name in seen or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                "Invalid value for argument `mesh`. Expected axes and their "
                'sizes like "batch:2,model:4". '
                f"Received: mesh={mesh!r}."
            )
        seen.add(name)
        axes[name] = int(size)
    return axes
