"""Sharded checkpoints of Keras variables, saved asynchronously and atomically."""

import jax
import orbax.checkpoint as ocp
from etils import epath

from star_keras.distribution import processes


class Checkpoints:
    """Named checkpoints of Keras variables in one directory, through Orbax.

    A checkpoint appears under its name only when it is complete. Every process of a
    run must make the same calls.

    Args:
        directory: Path of the directory, local or `gs://`. Made if needed.

    Example:
    ```python
    checkpoints = Checkpoints("runs/sums/weights")
    checkpoints.save("iteration_0001", model.variables)
    checkpoints.restore("iteration_0001", model.variables)
    ```
    """

    def __init__(self, directory):
        self.directory = epath.Path(directory).absolute()
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def names(self) -> list[str]:
        """Names of all checkpoints, sorted. Waits for the current save."""
        self.wait()
        if not self.directory.exists():
            return []
        return sorted(
            path.name
            for path in self.directory.iterdir()
            if ocp.utils.is_checkpoint_finalized(path)
        )

    def save(self, name: str, variables):
        """Save variables in the background. Waits for the previous save.

        Args:
            name: Name of the checkpoint. An existing one is replaced.
            variables: Keras variables of any shapes and dtypes. A checkpoint knows
                them by their order.
        """
        self._checkpointer.save(
            self.directory / name,
            args=ocp.args.StandardSave(
                {key: v.value for key, v in _by_key(variables).items()}
            ),
            force=True,
        )

    def wait(self):
        """Wait until the current save is on disk."""
        self._checkpointer.wait_until_finished()

    def restore(self, name: str, variables):
        """Restore the values of variables, each in its present layout.

        Args:
            name: Name of the checkpoint.
            variables: Keras variables with the order, shapes and dtypes of the
                saved ones. Their layout may differ.

        Raises:
            ValueError: if the checkpoint is missing or damaged, or has other
                variables. The error names the difference, and no variable is
                changed.
        """
        self.wait()
        path = self.directory / name
        if not path.exists():
            raise ValueError(
                f"The checkpoint {path} is missing. There are {self.names()}. Put it "
                "back, or start in another directory."
            )
        by_key = _by_key(variables)
        expected = {
            key: jax.ShapeDtypeStruct(
                v.value.shape, v.value.dtype, sharding=v.value.sharding
            )
            for key, v in by_key.items()
        }
        try:
            found = self._checkpointer.metadata(path).item_metadata.tree
            found = {key: (tuple(m.shape), m.dtype) for key, m in found.items()}
        except Exception as error:
            raise ValueError(
                f"The checkpoint {path} cannot be read: {error}. Remove it to go on "
                "from the one before."
            ) from error
        differing = [
            f"{by_key[key].path if key in by_key else key}: "
            f"{found.get(key, 'missing')} there, "
            f"{(s.shape, s.dtype) if (s := expected.get(key)) else 'none'} here"
            for key in sorted(found.keys() | expected.keys())
            if key not in found
            or key not in expected
            or found[key] != (expected[key].shape, expected[key].dtype)
        ]
        if differing:
            raise ValueError(
                f"The checkpoint {path} does not hold the variables of this run: "
                f"{'; '.join(differing[:5])} ({len(differing)} differ). Go on with the "
                "same model and optimizer."
            )
        restored = self._checkpointer.restore(
            path, args=ocp.args.StandardRestore(expected)
        )
        for key, value in restored.items():
            by_key[key].assign(value)

    def delete(self, name: str):
        """Remove a checkpoint. Waits for the current save.

        Args:
            name: Name of the checkpoint.
        """
        self.wait()
        if processes.is_writer():
            (self.directory / name).rmtree()


def _by_key(variables):
    # Not by path: Keras numbers the names in paths over the whole program.
    return {f"{i:05d}": variable for i, variable in enumerate(variables)}
