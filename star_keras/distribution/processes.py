"""What the processes of a run do together: one writes, all know the same."""

import contextlib
import json
import secrets
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.experimental import multihost_utils

from star_keras.utils.differences import differences


def is_writer() -> bool:
    """Whether this process writes files. Exactly one process of a run does."""
    return jax.process_index() == 0


def sync(name: str):
    """Wait for all processes.

    Args:
        name: Name of this point of the program, the same in all processes. Errors
            show it.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def token() -> bytes:
    """16 random bytes, the same in all processes."""
    drawn = np.frombuffer(secrets.token_bytes(16), "uint8")
    if jax.process_count() > 1:
        drawn = multihost_utils.broadcast_one_to_all(drawn)
    return np.asarray(drawn).tobytes()


def check_same(values: dict):
    """Check that all processes have the same values.

    Args:
        values: Values of JSON by their names. Every process must call this.

    Raises:
        ValueError: if a value is not that of process 0; names them.
    """
    if jax.process_count() == 1:
        return
    here = json.dumps(values)
    there = _of_writer(here)
    if here != there:
        differing = differences("", json.loads(there), json.loads(here))
        raise ValueError(
            f"Process {jax.process_index()} has other settings or data than process 0 "
            f"({'; '.join(differing)}). Give the same command to all processes, with "
            "copies of the same files."
        )


def _of_writer(text):
    """The text that the writer has."""
    data = np.frombuffer(text.encode("utf-8"), "uint8")
    size = int(multihost_utils.broadcast_one_to_all(np.array(len(data))))
    data = multihost_utils.broadcast_one_to_all(np.resize(data, size))
    return np.asarray(data).tobytes().decode("utf-8")


def gather(array) -> np.ndarray:
    """A sharded array as a whole, in every process.

    Args:
        array: `jax.Array` of any shape and dtype.

    Returns:
        A numpy array of the same shape and dtype.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


@contextlib.contextmanager
def whole(variables: Sequence[keras.Variable]):
    """A context in which Keras can save sharded variables.

    In this context the writer has the whole values, in the memory of its host.
    Every process must enter the context.

    Args:
        variables: Keras variables of any shapes and dtypes.
    """
    if all(v.value.is_fully_addressable for v in variables):
        yield
        return
    values = []
    for variable in variables:
        value = gather(variable.value)
        values.append((variable, value if is_writer() else variable.value))
    # The scope makes tensors of the arrays. No accelerator has room for all.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        scope = keras.StatelessScope(values)
    with scope:
        yield


class HostCopy:
    """A copy, in host memory, of this process's shards of an array.

    Args:
        array: `jax.Array` of any shape and dtype.
    """

    def __init__(self, array):
        self._shape, self._sharding = array.shape, array.sharding
        self._committed = array.committed
        if array.is_fully_replicated:
            # `addressable_shards` of JAX 0.10.2 fails if each process has one device
            # and `device_put` made the array of a local one, as for Keras' new weights.
            indices = self._sharding.addressable_devices_indices_map(self._shape)
            whole = np.array(array)
            self._shards = {str(index): whole for index in indices.values()}
            return
        self._shards = {}
        for shard in array.addressable_shards:
            if str(shard.index) not in self._shards:
                self._shards[str(shard.index)] = np.array(shard.data)

    def to_devices(self) -> jax.Array:
        """A new array on the devices, with the values and layout of the original."""
        if not self._committed:
            # JAX compiles a program once more where arguments are committed.
            (value,) = self._shards.values()
            return jnp.array(value)
        return jax.make_array_from_callback(
            self._shape, self._sharding, lambda index: self._shards[str(index)]
        )
