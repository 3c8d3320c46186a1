"""GGUF files, dequantized by transformers into a Hugging Face directory.

As a program, it dequantizes in a process of its own: PyTorch does not bear to be
imported after TensorFlow. It therefore imports nothing of this package.

    python star_keras/models/hugging_face/gguf_files.py MODEL.gguf DIRECTORY
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

_PACKAGES = ("accelerate", "gguf", "torch", "transformers")


def find_gguf(source) -> Path | None:
    """The GGUF file that is meant.

    Args:
        source: Path of a `*.gguf` file, or of a directory with one.

    Returns:
        Its path, or `None` if there is no such file, or the directory has a
        config.json as well.

    Raises:
        ValueError: if the directory has several such files.
    """
    path = Path(source)
    if path.is_file():
        return path if path.suffix == ".gguf" else None
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = sorted(path.glob("*.gguf"))
    if len(found) > 1:
        raise ValueError(
            f"{path} has several GGUF files. Name one of them: "
            f"{[file.name for file in found]}."
        )
    return found[0] if found else None


def dequantize(path, directory):
    """Write a GGUF file as a Hugging Face directory with float32 weights.

    Args:
        path: Path of the GGUF file.
        directory: Path of the directory, made if needed.

    Raises:
        ImportError: if a package of the extra `gguf` is missing.
        ValueError: if transformers cannot read the file. The error has its reason.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"Reading {path} needs {missing}: pip install 'star-keras[gguf]'."
        )
    # -P: the program's own directory does not come before the packages.
    done = subprocess.run(
        [sys.executable, "-P", __file__, path, directory],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ValueError(f"transformers could not read {path}: {lines[-1]}")


def _dequantize_here(path, directory):
    import torch
    import transformers

    names = {"gguf_file": path.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, **names
    )
    # A model anew, for the other one would be saved as one that is still quantized.
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    plain = type(model)(type(model.config).from_dict(config))
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    plain.save_pretrained(directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **names)
    tokenizer.save_pretrained(directory)


if __name__ == "__main__":
    _dequantize_here(Path(sys.argv[1]), Path(sys.argv[2]))
