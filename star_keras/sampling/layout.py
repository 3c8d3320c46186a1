"""The sharding of the arrays that samplers compute with."""

import dataclasses
import math
import re

import jax
import keras
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from star_keras.distribution import CausalLMParallel, current_mesh
from star_keras.models.forward import cache_shapes
from star_keras.utils.errors import invalid

# GPT-NeoX has one kernel for query, key and value; the keys of SmolLM 3 are a matrix.
_KEY_KERNEL = re.compile("(key|key_value|k_proj)[/_]kernel$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshLayout:
    """Shardings over a mesh, or none on a single device.

    Attributes:
        mesh: The mesh; `None` on a single device.
        batch_axes: Mesh axes that split the rows of a batch.
    """

    mesh: Mesh | None = None
    batch_axes: tuple[str, ...] = ()

    @classmethod
    def current(cls) -> "MeshLayout":
        """The layout of the `keras.distribution` in force.

        Raises:
            ValueError: if the distribution cannot lay out all variables, see
                `CausalLMParallel.check_layouts`.
        """
        distribution = keras.distribution.distribution()
        if distribution is None:
            return cls()
        if isinstance(distribution, CausalLMParallel):
            distribution.check_layouts()
        mesh, rows, _ = current_mesh()
        return cls(mesh=mesh, batch_axes=rows)

    @property
    def batch_devices(self) -> int:
        """Number of parts that the rows of a batch are split into."""
        return math.prod(self.mesh.shape[axis] for axis in self.batch_axes)

    def heads_axis(self, model) -> str | None:
        """Mesh axis that splits the key-value heads of a causal LM.

        Args:
            model: A `keras_hub.models.CausalLM` of a known family.

        Returns:
            `None` if they are not split, or do not divide by the devices.
        """
        if self.mesh is None:
            return None
        num_kv_heads, head_dim = cache_shapes(model)[0]
        distribution = keras.distribution.distribution()
        for variable in model.backbone.transformer_layers[0].variables:
            if _KEY_KERNEL.search(variable.path):
                *sizes, last = variable.shape
                if len(sizes) == 1 and last == num_kv_heads * head_dim:
                    last = num_kv_heads  # a matrix, whose last axis is that of heads
                axes = distribution.get_variable_layout(variable).axes
                for size, axis in zip((*sizes, last), axes, strict=True):
                    if (
                        size == num_kv_heads
                        and axis not in (None, *self.batch_axes)
                        and size % self.mesh.shape[axis] == 0
                    ):
                        return axis
        return None

    def check_batch_size(self, batch_size: int):
        """Check that every device gets the same number of rows.

        Args:
            batch_size: Rows of a batch.

        Raises:
            ValueError: if `batch_size` is not a multiple of `batch_devices`.
        """
        devices = self.batch_devices
        if batch_size % devices:
            raise invalid(
                "batch_size",
                f"a multiple of the {devices} devices of the mesh's axis "
                f"{' and '.join(map(repr, self.batch_axes))}",
                batch_size,
                f"Nearest: {-(-batch_size // devices) * devices}.",
            )

    def sharding(self, *axes) -> NamedSharding | None:
        """A sharding of arrays.

        Args:
            *axes: Mesh axes or `None` for each of the first array axes, as in
                `PartitionSpec`.

        Returns:
            `None` on a single device.
        """
        if self.mesh is None:
            return None
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def constrain(self, arrays, *axes):
        """Give traced arrays a sharding; no-op on a single device.

        Args:
            arrays: An array or a tree of arrays.
            *axes: See `sharding`.

        Returns:
            The same tree.
        """
        sharding = self.sharding(*axes)
        if sharding is None:
            return arrays
        return jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(x, sharding), arrays
        )
