"""What differs between the processes of one run; all of it holds for one alone.

Every process runs the same program on the same data. One of them, the writer,
has the files; what it reads it hands to the others.
"""

import contextlib
from collections.abc import Callable, Sequence

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils


def is_writer() -> bool:
    """Whether this process writes the files of the run."""
    return jax.process_index() == 0


def sync(name: str):
    """Wait until every process is here; `name` is the same for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(array) -> np.ndarray:
    """A copy of all of an array, also of parts on other processes' devices.

    Every process must call it.
    """
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        return multihost_utils.process_allgather(array, tiled=True)
    return np.array(array)


@contextlib.contextmanager
def whole(variables: Sequence[keras.Variable]):
    """Within it the values of variables are whole, to be saved.

    Every process must enter it; the writer alone needs the values.
    """
    if all(v.value.is_fully_addressable for v in variables):
        yield
        return
    values = []
    for variable in variables:
        value = gather(variable.value)
        values.append((variable, value if is_writer() else variable.value))
    with keras.StatelessScope(values):
        yield


def from_writer(read: Callable[[], bytes | None]) -> bytes | None:
    """What `read` returns on the writer, for every process.

    Only the writer calls it. `None` stands for a file that does not exist.
    """
    if jax.process_count() == 1:
        return read()
    content = read() if is_writer() else None
    size = -1 if content is None else len(content)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(size)))
    if size <= 0:
        return None if size < 0 else b""
    sent = np.frombuffer(content or bytes(size), "uint8")
    return multihost_utils.broadcast_one_to_all(sent).tobytes()
