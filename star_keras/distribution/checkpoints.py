"""Sharded checkpoints of Keras variables, saved asynchronously and atomically."""

import concurrent.futures
import contextlib
import re
import textwrap

import jax
import orbax.checkpoint as ocp
from etils import epath

from star_keras.distribution import processes
from star_keras.distribution.checkpoint_files import check_files, record_files
from star_keras.utils import files

# In the names of checkpoints that are being written.
_MARK = ".orbax-checkpoint-tmp"
# A full disk, or one that cannot be written, in errors of TensorStore.
_DISK = re.compile(
    "No space left|File too large|quota exceeded|Permission denied|Read-only", re.I
)


class Checkpoints:
    """Named checkpoints of Keras variables in one directory, through Orbax.

    A checkpoint appears under its name only when it is complete. Every process of a
    run must make the same calls.

    Args:
        directory: Path of the directory, local or `gs://`. Made if needed.
        checksums: Whether changed bytes are noticed too, not only the sizes of the
            files. A save then reads its files again.

    Example:
    ```python
    checkpoints = Checkpoints("runs/sums/weights")
    checkpoints.save("iteration_0001", model.variables)
    checkpoints.restore("iteration_0001", model.variables)
    ```
    """

    def __init__(self, directory, checksums: bool = True):
        self.directory = epath.Path(directory).absolute()
        self._checkpointer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._checksums = checksums
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None

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

    def unfinished(self) -> list:
        """Paths of partial checkpoints of a kill. Waits for the current save."""
        self.wait()
        if not self.directory.exists():
            return []
        return sorted(p for p in self.directory.iterdir() if _MARK in p.name)

    def remove_unfinished(self):
        """Remove partial checkpoints, which a kill within a save leaves."""
        for path in self.unfinished():
            if processes.is_writer():
                # An earlier run of this process may complete its save meanwhile.
                with contextlib.suppress(FileNotFoundError):
                    path.rmtree()

    def save(self, name: str, variables):
        """Save variables in the background. Waits for the previous save.

        Programs that donate the variables do not change what is saved: Orbax has
        copied it to the host. On CPU it reads the array itself, which JAX then copies
        instead of donating it.

        Args:
            name: Name of the checkpoint. An existing one is replaced.
            variables: Keras variables of any shapes and dtypes. A checkpoint knows
                them by their order.

        Raises:
            OSError: if this checkpoint or the one before it cannot be written; names
                the directory.
        """
        self.wait()
        with self._named_errors():
            self._checkpointer.save(
                self.directory / name,
                args=ocp.args.StandardSave(
                    {key: v.value for key, v in _by_key(variables).items()}
                ),
                force=True,
            )
        self._saving = self._thread.submit(self._complete, name)

    def _complete(self, name):
        self._checkpointer.wait_until_finished()
        if processes.is_writer():
            record_files(self.directory / name, checksums=self._checksums)

    def is_saving(self) -> bool:
        """Whether `wait` would wait. Processes may differ."""
        return self._saving is not None and not self._saving.done()

    def wait(self):
        """Wait until the current save is on disk.

        Raises:
            OSError: if it cannot be written; names the directory.
        """
        if self._saving is not None:
            concurrent.futures.wait([self._saving])
            # Taken first: a save that fails is not waited for again.
            saving, self._saving = self._saving, None
            with self._named_errors():
                saving.result()

    @contextlib.contextmanager
    def _named_errors(self):
        """Errors of a full disk as those of other files."""
        try:
            yield
        except Exception as error:
            # TensorStore's errors are ValueErrors with the system's words in them.
            if isinstance(error, OSError) or _DISK.search(str(error)):
                raise files.unwritable(error, self.directory) from error
            raise

    def check(self, name: str) -> dict:
        """Check the files of a checkpoint. Waits for the current save.

        Args:
            name: Name of the checkpoint.

        Returns:
            Orbax's metadata of the variables, with `shape` and `dtype`, by key.

        Raises:
            ValueError: if the checkpoint is missing or damaged; names the file.
        """
        self.wait()
        path = self.directory / name
        if not path.exists():
            raise ValueError(
                f"The checkpoint {path} is missing. There are {self.names()}. Put it "
                "back."
            )
        with _damage_named(path):
            check_files(path)
            metadata = self._checkpointer.metadata(path).item_metadata
            if metadata is None:
                raise ValueError("its metadata cannot be read.")
            return metadata.tree

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
        path = self.directory / name
        tree = self.check(name)
        by_key = _by_key(variables)
        expected = {
            key: jax.ShapeDtypeStruct(
                v.value.shape, v.value.dtype, sharding=v.value.sharding
            )
            for key, v in by_key.items()
        }
        with _damage_named(path):
            found = {key: (tuple(m.shape), m.dtype) for key, m in tree.items()}
        differing = [
            f"{by_key[key].path if key in by_key else key}: "
            f"{found.get(key, 'missing')} there, "
            f"{(s.shape, s.dtype) if (s := expected.get(key)) is not None else 'none'} "
            "here"
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
        with _damage_named(path):
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


@contextlib.contextmanager
def _damage_named(path):
    """Errors of a damaged checkpoint: its path and the first words of the cause."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"The checkpoint {path} is damaged: {textwrap.shorten(lines[0], 200)}"
        ) from error


def _by_key(variables):
    # Not by path: Keras numbers the names in paths over the whole program.
    return {f"{i:05d}": variable for i, variable in enumerate(variables)}
