"""Sizes of a mesh from a string like `"batch:2,model:4"`, and its slices."""

import collections
import math

from star_keras.utils.errors import invalid

# Axes that split the rows of a batch, the slowest first.
ROW_AXES = ("slice", "batch")


def parse_mesh(mesh: str) -> dict[str, int]:
    """Axis sizes from a mesh string.

    Args:
        mesh: `"batch:N,model:N"` or `"slice:N,batch:N,model:N"`, in any order. A
            missing `batch` or `model` has the size 1.

    Returns:
        Axis sizes like `{"batch": 2, "model": 4}`, in this order. `"slice"` comes
        first, if it is given.

    Raises:
        ValueError: if the string is malformed.

    Example:
    ```python
    parse_mesh("model:8")  # {"batch": 1, "model": 8}
    ```
    """
    axes = {"slice": None, "batch": 1, "model": 1}
    seen = set()
    for part in mesh.split(","):
        name, _, size = part.strip().partition(":")
        if name not in axes or name in seen or not size.isdecimal() or int(size) < 1:
            rule = 'axes and their sizes like "batch:2,model:4" or "slice:2,batch:8"'
            raise invalid("mesh", rule, mesh)
        seen.add(name)
        axes[name] = int(size)
    return {name: size for name, size in axes.items() if size is not None}


def row_parts(axes: dict[str, int]) -> int:
    """Number of parts that a mesh splits the rows of a batch into.

    Args:
        axes: Axis sizes, see `parse_mesh`.
    """
    return math.prod(axes.get(name, 1) for name in ROW_AXES)


def slice_of(device) -> int | None:
    """Number of the slice of a TPU, `None` for other devices and for names."""
    if getattr(device, "platform", None) == "tpu":
        return getattr(device, "slice_index", 0)


def check_slices(mesh: str, size: int, devices: list):
    """Check that `slice` is the number of TPU slices.

    Args:
        mesh: The mesh, for the error.
        size: Its number of slices.
        devices: Its devices or their names.

    Raises:
        ValueError: if TPUs are in another number of slices, or not slice by slice.
    """
    slices = [slice_of(device) for device in devices]
    if None in slices:
        return
    found = collections.Counter(slices)
    if len(found) != size:
        listed = ", ".join(f"{n} in slice {at}" for at, n in sorted(found.items()))
        raise ValueError(
            f"The mesh {mesh!r} has the size {size} of `slice`, but the devices are in "
            f"{len(found)} TPU slices: {listed}. Expected slice:{len(found)}."
        )
    count = len(slices) // size
    if any(len(set(slices[i : i + count])) > 1 for i in range(0, len(slices), count)):
        raise ValueError(
            f"The devices of the mesh {mesh!r} are in the TPU slices {slices}. "
            f"Expected them slice by slice, {count} of each."
        )
