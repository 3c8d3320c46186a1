"""The mesh of the `keras.distribution` in force."""

import math
from typing import NamedTuple

import jax
import keras
from jax.sharding import Mesh

from star_keras.utils.errors import invalid


class CurrentMesh(NamedTuple):
    """A mesh, and what its axes split.

    Attributes:
        mesh: `jax.sharding.Mesh`.
        rows: tuple of strings. Axes that split the rows of a batch; may be empty.
        others: tuple of strings. Its other axes, which split weights.
    """

    mesh: Mesh
    rows: tuple[str, ...]
    others: tuple[str, ...]

    def parts(self, axes) -> int:
        """Number of parts into which axes split an array axis.

        Args:
            axes: tuple of strings, e.g. `rows`.
        """
        return math.prod(self.mesh.shape[axis] for axis in axes)


def current_mesh() -> CurrentMesh | None:
    """The mesh of the `keras.distribution` in force, `None` without one.

    Raises:
        ValueError: if its `batch_dim_name` is not an axis of its mesh.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    mesh, rows = distribution.device_mesh.backend_mesh, distribution.batch_dim_name
    rows = (rows,) if isinstance(rows, str) else tuple(rows or ())
    if not set(rows) <= set(mesh.axis_names):
        axes = " or ".join(map(repr, mesh.axis_names))
        rule = f"an axis of the distribution's mesh, {axes}"
        raise invalid("batch_dim_name", rule, distribution.batch_dim_name)
    others = tuple(axis for axis in mesh.axis_names if axis not in rows)
    return CurrentMesh(mesh, rows, others)


def first_device():
    """A device of the current mesh, or the default device."""
    current = current_mesh()
    return current.mesh.devices.flat[0] if current else jax.devices()[0]


def split_rows(arrays):
    """Split arrays over the axes of rows; no-op without a `keras.distribution`.

    Args:
        arrays: A tree of arrays `(batch, ...)`.

    Returns:
        The same tree.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return arrays
    return jax.tree.map(
        lambda x: keras.distribution.distribute_tensor(
            x, distribution.get_data_layout(x.shape)
        ),
        arrays,
    )
