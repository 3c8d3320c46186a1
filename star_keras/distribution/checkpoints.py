"""Variables on disk: sharded, asynchronous, whole or not at all."""

import jax
import orbax.checkpoint as ocp
from etils import epath

from star_keras.distribution import processes


class Checkpoints:
    """Named sets of Keras variables in a directory, through Orbax.

    Every process of a run makes the same calls.

    Args:
        directory: Where they go, local or `gs://`.
    """

    def __init__(self, directory):
        self.directory = epath.Path(directory).absolute()
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())

    def names(self) -> list[str]:
        """Names of the checkpoints, sorted; waits for one that is being saved."""
        self.wait()
        if not self.directory.exists():
            return []
        return sorted(
            path.name
            for path in self.directory.iterdir()
            if ocp.utils.is_checkpoint_finalized(path)
        )

    def save(self, name: str, variables):
        """Save while the program goes on; waits for the save before it.

        Args:
            name: Its name. One of that name is replaced.
            variables: Keras variables; their order names them.
        """
        self._checkpointer.save(
            self.directory / name,
            args=ocp.args.StandardSave(
                {key: v.value for key, v in _by_key(variables).items()}
            ),
            force=True,
        )

    def wait(self):
        """Wait until what is being saved is on disk."""
        self._checkpointer.wait_until_finished()

    def restore(self, name: str, variables):
        """Put saved values into variables, in the layout that these have.

        Args:
            name: Name of the checkpoint.
            variables: Those that were saved, in the same order.

        Raises:
            ValueError: if there is no such checkpoint, or if the saved
                variables are not exactly these; names what differs. No variable
                is changed then.
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
        """Remove a checkpoint."""
        self.wait()
        if processes.is_writer():
            (self.directory / name).rmtree()


def _by_key(variables):
    # Paths hold names that Keras numbers by what else the program has made.
    return {f"{i:05d}": variable for i, variable in enumerate(variables)}
