import importlib.util
import io
import os
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest

from star_keras.models.hugging_face.torch_files import read_torch_file
from tests.conftest import PROGRAMS
from tests.models.hugging_face.cases import FIXTURES


def archive(path, value):
    """A zip archive like that of `torch.save`, with a pickle of `value`."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
    return path


class Storage:
    """Pickled by `Pickler` as a float32 storage of so many elements."""

    def __init__(self, length, key="0"):
        self.length, self.key = length, key


class Pickler(pickle.Pickler):
    """Writes the names and the references to storages that PyTorch would write."""

    def persistent_id(self, value):
        if isinstance(value, Storage):
            return "storage", torch.FloatStorage, value.key, "cpu", value.length
        return None


def _named(name, module):
    function = types.FunctionType((lambda *_: None).__code__, {}, name)
    function.__module__, function.__qualname__ = module, name
    return function


torch = types.SimpleNamespace(FloatStorage=_named("FloatStorage", "torch"))
rebuild = _named("_rebuild_tensor_v2", "torch._utils")


class Tensor:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return rebuild, self.arguments


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files with 6 elements, 0 to 5, and tensors that say what they like."""
    utils = types.SimpleNamespace(_rebuild_tensor_v2=rebuild)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    data = np.arange(6, dtype="<f4").tobytes()

    def new(*arguments):
        with zipfile.ZipFile(tmp_path / "new.bin", "w") as file:
            buffer = io.BytesIO()
            Pickler(buffer, protocol=2).dump({"weight": Tensor(*arguments)})
            file.writestr("archive/data.pkl", buffer.getvalue())
            file.writestr("archive/data/0", data)
        return tmp_path / "new.bin"

    def old(*arguments):
        with (tmp_path / "old.bin").open("wb") as file:
            for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
                pickle.dump(value, file, protocol=2)
            Pickler(file, protocol=2).dump({"weight": Tensor(*arguments)})
            pickle.dump(["0"], file, protocol=2)
            file.write((6).to_bytes(8, "little") + data)
        return tmp_path / "old.bin"

    return {"new": new, "old": old}


@pytest.mark.parametrize(
    "path, dtype",
    [
        ("llama_bin/pytorch_model.bin", "bfloat16"),
        ("llama_old_bin/pytorch_model-00001-of-00002.bin", "float32"),
        ("gpt2_bin/pytorch_model.bin", "float16"),
    ],
)
def test_both_formats_are_read_without_pytorch(path, dtype):
    tensors = read_torch_file(FIXTURES / path)
    name = next(name for name in tensors if "embed_tokens" in name or "wte" in name)
    value = tensors[name]()
    assert value.dtype == dtype
    assert value.shape[1] == 32
    assert np.isfinite(value.astype("float32")).all()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_tensors_are_those_of_pytorch(tmp_path):
    subprocess.run(
        [sys.executable, PROGRAMS / "torch_tensors.py", tmp_path], check=True
    )
    with np.load(tmp_path / "arrays.npz") as arrays:
        for file in ("new.bin", "old.bin"):
            tensors = read_torch_file(tmp_path / file)
            assert tensors.keys() == set(arrays.files)
            for name, read in tensors.items():
                assert read().dtype == arrays[name].dtype
                np.testing.assert_array_equal(read(), arrays[name])


def test_code_in_a_file_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(ValueError, match="mkdir. Expected tensors"):
        read_torch_file(archive(tmp_path / "evil.bin", {"a": Evil()}))
    (tmp_path / "old.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="no file of torch.save"):
        read_torch_file(tmp_path / "old.bin")
    assert not (tmp_path / "made").exists()


def test_what_is_no_tensor_is_named(tmp_path):
    path = archive(tmp_path / "numbers.bin", {"step": 3})
    with pytest.raises(ValueError, match="'step', which is no tensor"):
        read_torch_file(path)


def test_a_cut_file_is_to_be_copied_again(write):
    path = write["new"](Storage(6), 0, (2,), (1,))
    whole = path.read_bytes()
    for size in (0, 10, len(whole) - 30):
        path.write_bytes(whole[:size])
        rule = rf"beginning of one: it has {size} bytes\. Copy the file again"
        with pytest.raises(ValueError, match=rule):
            read_torch_file(path)


def test_a_damaged_file_is_to_be_copied_again(write):
    path = write["new"](Storage(6), 0, (2,), (1,))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"_rebuild_tensor", b"_rebuild_tensxr"))
    with pytest.raises(ValueError, match="is damaged: Bad CRC-32.*Copy the file again"):
        read_torch_file(path)


def test_another_file_is_an_error(tmp_path):
    (tmp_path / "text.bin").write_text("hello")
    with pytest.raises(ValueError, match="no file of torch.save"):
        read_torch_file(tmp_path / "text.bin")


@pytest.mark.parametrize("kind", ("new", "old"))
def test_a_tensor_is_a_part_of_its_storage(kind, write):
    path = write[kind](Storage(6), 1, (2, 2), (3, 1))
    assert read_torch_file(path)["weight"]().tolist() == [[1, 2], [4, 5]]
    path = write[kind](Storage(6), 6, (0, 2), (2, 1))
    assert read_torch_file(path)["weight"]().shape == (0, 2)


@pytest.mark.parametrize("kind", ("new", "old"))
@pytest.mark.parametrize(
    "arguments",
    [
        (Storage(6), 0, (7,), (1,)),
        (Storage(6), 2, (2, 2), (3, 1)),
        (Storage(6), 0, (2,), (10**12,)),
        (Storage(6), 5, (2,), (-1,)),
        (Storage(6), -1, (2,), (1,)),
        (Storage(6), 6, (), ()),
        (Storage(6), 0, (-2,), (1,)),
        (Storage(6), 0, (2, 3), (1,)),
        (Storage(6), 0.0, (2,), (1,)),
        (Storage(6), 0, 6, 1),
        (Storage(-6), 0, (1,), (1,)),
        (Storage(10**9), 0, (10**9,), (1,)),
        (Storage(6, key="1"), 0, (6,), (1,)),
        ("no storage", 0, (6,), (1,)),
    ],
)
def test_a_tensor_that_reaches_out_of_its_storage_is_an_error(kind, arguments, write):
    path = write[kind](*arguments)
    message = f"{path.name}.*('weight' reaches out of its storage|lists no storages)"
    with pytest.raises(ValueError, match=message):
        read_torch_file(path)


def test_a_damaged_file_is_an_error(write, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.bin", "w") as file:
        file.writestr("archive/data/0", b"")
    with pytest.raises(ValueError, match="empty.bin.*lacks data.pkl"):
        read_torch_file(tmp_path / "empty.bin")
    with pytest.raises(ValueError, match="list.bin holds a list. Expected a dict"):
        read_torch_file(archive(tmp_path / "list.bin", [1, 2]))
    with zipfile.ZipFile(tmp_path / "cut.bin", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}, protocol=2)[:-3])
    with pytest.raises(ValueError, match="cut.bin holds no pickle of tensors"):
        read_torch_file(tmp_path / "cut.bin")
    path = write["old"](Storage(6), 0, (6,), (1,))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="'weight' reaches out of its storage"):
        read_torch_file(path)
    for end in (b"", (-1).to_bytes(8, "little", signed=True), b"\x7f" * 8):
        path.write_bytes(whole[:-32] + end)
        with pytest.raises(ValueError, match="the storage '0' is missing"):
            read_torch_file(path)
