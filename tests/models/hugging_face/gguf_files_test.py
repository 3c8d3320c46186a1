import importlib.util
import shutil
import subprocess

import pytest

from star_keras.models.hugging_face import gguf_files
from star_keras.models.hugging_face.gguf_files import dequantize, find_gguf
from tests.models.hugging_face.cases import FIXTURES


def test_a_file_or_the_only_one_of_a_directory_is_found(tmp_path):
    assert find_gguf(tmp_path) is None
    file = tmp_path / "model.Q4_1.gguf"
    file.touch()
    assert find_gguf(file) == find_gguf(tmp_path) == file
    (tmp_path / "other.gguf").touch()
    with pytest.raises(ValueError, match="several.*'model.Q4_1.gguf', 'other.gguf'"):
        find_gguf(tmp_path)
    (tmp_path / "config.json").touch()
    assert find_gguf(tmp_path) is None
    assert find_gguf(FIXTURES / "gpt2" / "config.json") is None
    assert find_gguf("hf://organization/name") is None


def test_the_extra_is_named_where_a_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name != "gguf" or None
    )
    with pytest.raises(ImportError, match=r"\['gguf'\].*'star-keras\[gguf\]'"):
        dequantize(tmp_path / "model.gguf", tmp_path)


def test_the_reason_of_transformers_is_passed_on(tmp_path, monkeypatch):
    program = tmp_path / "program.py"
    program.write_text("raise ValueError('GGUF model with architecture x')")
    monkeypatch.setattr(gguf_files, "__file__", str(program))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ValueError, match="could not read.*with architecture x"):
        dequantize(tmp_path / "model.gguf", tmp_path)


def test_the_program_imports_nothing_of_this_package(tmp_path):
    # TensorFlow before PyTorch would end it.
    code = (
        f"import runpy, sys; runpy.run_path({gguf_files.__file__!r}); "
        "assert not {'keras', 'tensorflow', 'star_keras'} & set(sys.modules)"
    )
    python = shutil.which("python3")
    subprocess.run([python, "-P", "-c", code], check=True, cwd=tmp_path)
