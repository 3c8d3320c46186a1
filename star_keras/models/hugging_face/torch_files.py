"""PyTorch files of tensors (`pytorch_model.bin`), read without PyTorch.

Both formats of `torch.save` are a pickle that names tensors by storage, offset, size
and strides. The newer one is a zip archive with one uncompressed entry a storage. The
older one, of PyTorch before 1.6, is five pickles in a row, and then the storages.
"""

import collections
import functools
import pickle
import struct
import typing
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

_DTYPES = {
    "DoubleStorage": np.dtype("float64"),
    "FloatStorage": np.dtype("float32"),
    "HalfStorage": np.dtype("float16"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("int64"),
    "IntStorage": np.dtype("int32"),
    "ShortStorage": np.dtype("int16"),
    "CharStorage": np.dtype("int8"),
    "ByteStorage": np.dtype("uint8"),
    "BoolStorage": np.dtype("bool"),
}
# Of zipfile, about a damaged archive.
_ZIP_ERRORS = zipfile.BadZipFile, NotImplementedError, EOFError, OSError, struct.error
_REMEDY = "Copy the file again."
_OLD_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C


class _Storage(typing.NamedTuple):
    dtype: np.dtype
    key: str
    length: int

    @property
    def bytes(self):
        return self.length * self.dtype.itemsize


class _Tensor(typing.NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


def read_torch_file(path):
    """The tensors of a PyTorch file that holds a state dict.

    Nothing but tensors is unpickled, so a file cannot run code.

    Args:
        path: Path of the file.

    Returns:
        Dict from the name of a tensor to a function without arguments that reads it
        as a numpy array, a view of the mapped file.

    Raises:
        ValueError: if the file is no such file, is damaged, or holds anything but
            tensors; or if a tensor reaches out of its storage.
    """
    path = Path(path)
    if zipfile.is_zipfile(path):
        try:
            state, offsets = _read_zip(path)
        except _ZIP_ERRORS as error:
            raise ValueError(f"{path} is damaged: {error}. {_REMEDY}") from error
    else:
        state, offsets = _read_old(path)
    if not isinstance(state, dict):
        raise ValueError(
            f"{path} holds a {type(state).__name__}. Expected a dict of tensors."
        )
    wrong = [name for name, value in state.items() if not isinstance(value, _Tensor)]
    if wrong:
        raise ValueError(f"{path} holds {wrong[0]!r}, which is no tensor.")
    size = path.stat().st_size
    for name, tensor in state.items():
        if not _is_inside(tensor, offsets, size):
            raise ValueError(
                f"{path}: the tensor {name!r} reaches out of its storage: {tensor}. "
                f"{_REMEDY}"
            )
    return {
        name: functools.partial(_read_tensor, path, tensor, offsets[tensor.storage.key])
        for name, tensor in state.items()
    }


def _is_inside(tensor, offsets, size):
    """Whether all elements are in the storage, and the storage is in the file.

    Nothing is known of the types of the fields, which come from the file.
    """
    storage, offset, shape, strides = tensor
    if not (
        isinstance(storage, _Storage)
        and storage.key in offsets
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides)
        and all(
            isinstance(number, int) and number >= 0
            for number in (storage.length, offset, *shape, *strides)
        )
        and offsets[storage.key] + storage.bytes <= size
    ):
        return False
    if 0 in shape:
        return True
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    return offset + last < storage.length


def _read_tensor(path, tensor, start):
    storage = tensor.storage
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, storage.dtype)
    array = np.memmap(path, np.uint8, "r", start, (storage.bytes,))
    array = array.view(np.ndarray).view(storage.dtype)[tensor.offset :]
    return np.lib.stride_tricks.as_strided(
        array,
        tensor.shape,
        [stride * storage.dtype.itemsize for stride in tensor.strides],
        writeable=False,
    )


def _read_zip(path):
    offsets, pickled = {}, None
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            folder, _, key = entry.filename.rpartition("/")
            if folder.endswith("/data"):
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{path}: {entry.filename} is compressed.")
                # The header of an entry ends with its name and an extra field.
                file.seek(entry.header_offset + 26)
                lengths = struct.unpack("<HH", file.read(4))
                offsets[key] = entry.header_offset + 30 + sum(lengths)
            elif key == "data.pkl":
                pickled = entry.filename
            elif key == "byteorder" and archive.read(entry).strip() != b"little":
                raise ValueError(f"{path} is big-endian. Expected little-endian.")
        if pickled is None:
            raise ValueError(
                f"{path} is no file of torch.save: it lacks data.pkl. {_REMEDY}"
            )
        with archive.open(pickled) as file:
            return _Unpickler(file, path).load(), offsets


def _read_old(path):
    with path.open("rb") as file:
        try:
            magic = _Unpickler(file, path).load()
        except ValueError:
            magic = None
        if magic != _OLD_MAGIC_NUMBER:
            size = path.stat().st_size
            raise ValueError(
                f"{path} is no file of torch.save, or only the beginning of one: it "
                f"has {size:,} bytes. {_REMEDY}"
            )
        _Unpickler(file, path).load()  # the version of the protocol
        system = _Unpickler(file, path).load()
        if not isinstance(system, dict) or not system.get("little_endian", True):
            raise ValueError(f"{path} is big-endian. Expected little-endian.")
        unpickler = _Unpickler(file, path)
        state = unpickler.load()
        offsets = {}
        keys = _Unpickler(file, path).load()
        if not isinstance(keys, list) or set(keys) - unpickler.dtypes.keys():
            raise ValueError(f"{path} is damaged: it lists no storages. {_REMEDY}")
        for key in keys:
            header = file.read(8)
            length = struct.unpack("<q", header)[0] if len(header) == 8 else -1
            if not 0 <= length <= path.stat().st_size:
                raise ValueError(
                    f"{path} is damaged: the storage {key!r} is missing. {_REMEDY}"
                )
            offsets[key] = file.tell()
            file.seek(length * unpickler.dtypes[key].itemsize, 1)
    return state, offsets


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, path):
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.dtypes = {}

    def load(self):
        try:
            return super().load()
        except (
            pickle.UnpicklingError,
            AttributeError,
            EOFError,
            IndexError,
            KeyError,
            TypeError,
        ) as error:
            raise ValueError(
                f"{self.path} holds no pickle of tensors. {_REMEDY}"
            ) from error

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, shape, strides
            )
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in _DTYPES:
            return name
        raise ValueError(
            f"{self.path} holds a {module}.{name}. Expected tensors of the storages "
            f"{sorted(_DTYPES)} alone."
        )

    def persistent_load(self, pid):
        _, name, key, _, length, *_ = pid
        self.dtypes[key] = _DTYPES[name]
        return _Storage(_DTYPES[name], key, length)
