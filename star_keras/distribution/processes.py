"""What the processes of a run do together: one writes, all know the same."""

import contextlib
import secrets
from collections.abc import Sequence

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils


def is_writer() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def sync(name: str):
    """Wait until all processes are here.

    Args:
        name: The same in all of them; errors show it.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def token() -> bytes:
    """Random bytes, the same in all processes."""
    drawn = np.frombuffer(secrets.token_bytes(16), "uint8")
    if jax.process_count() > 1:
        drawn = multihost_utils.broadcast_one_to_all(drawn)
    return np.asarray(drawn).tobytes()


def gather(array) -> np.ndarray:
    """The whole of a `jax.Array` in every process, wherever its shards are."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@contextlib.contextmanager
def whole(variables: Sequence[keras.Variable]):
    """Within it the values of variables are whole, to be saved by Keras.

    Every process must enter it; the writer alone has the values, in its host's
    memory.
    """
    if all(v.value.is_fully_addressable for v in variables):
        yield
        return
    values = []
    for variable in variables:
        value = gather(variable.value)
        values.append((variable, value if is_writer() else variable.value))
    # The scope makes tensors of the arrays; no accelerator has room for all.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        scope = keras.StatelessScope(values)
    with scope:
        yield


class HostCopy:
    """A copy of the shards that this process has of an array, in host memory.

    Args:
        array: A `jax.Array`.
    """

    def __init__(self, array):
        self._shape, self._sharding = array.shape, array.sharding
        self._shards = {}
        for shard in array.addressable_shards:
            if str(shard.index) not in self._shards:
                self._shards[str(shard.index)] = np.array(shard.data)

    def to_devices(self) -> jax.Array:
        """A new array like the one that was copied, in the same layout."""
        return jax.make_array_from_callback(
            self._shape, self._sharding, lambda index: self._shards[str(index)]
        )
