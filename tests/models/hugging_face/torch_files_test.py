import importlib.util
import os
import pickle
import subprocess
import sys
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


def test_another_file_is_an_error(tmp_path):
    (tmp_path / "text.bin").write_text("hello")
    with pytest.raises(ValueError, match="no file of torch.save"):
        read_torch_file(tmp_path / "text.bin")
