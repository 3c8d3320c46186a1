"""The tensor files of a Hugging Face directory, one tensor at a time."""

import functools
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from star_keras.models.hugging_face.torch_files import read_torch_file
from star_keras.utils.json_lines import read_json_object


def find_tensors(directory):
    """The tensors of a Hugging Face directory.

    Args:
        directory: Path with `model.safetensors` or `pytorch_model.bin`, or several
            such files and an index.

    Returns:
        Dict from the name of a tensor to a function without arguments that reads it
        as a numpy array. The array is a copy, or a read-only view of the file.

    Raises:
        FileNotFoundError: if there are no weights, or one of their files is missing.
        ValueError: if a file is damaged, or holds anything but tensors.
    """
    directory = Path(directory)
    for stem, suffix, tensors_in in (
        ("model", "safetensors", _safetensors),
        ("pytorch_model", "bin", read_torch_file),
    ):
        index = directory / f"{stem}.{suffix}.index.json"
        if not index.is_file():
            if (directory / f"{stem}.{suffix}").is_file():
                return tensors_in(directory / f"{stem}.{suffix}")
            continue
        names = read_json(index)["weight_map"]
        files = sorted(set(names.values()))
        gone = [file for file in files if not (directory / file).is_file()]
        if gone:
            raise FileNotFoundError(
                f"{index} names {gone}, which {directory} lacks. Download them."
            )
        found = {file: tensors_in(directory / file) for file in files}
        wrong = sorted(name for name, file in names.items() if name not in found[file])
        if wrong:
            raise ValueError(
                f"{index} names the tensor {wrong[0]!r}, which {names[wrong[0]]} lacks."
            )
        return {name: found[file][name] for name, file in names.items()}
    raise FileNotFoundError(
        f"There are no weights in {directory}. Expected model.safetensors, "
        "pytorch_model.bin, or several such files with an index."
    )


def save_tensors(directory, sizes, read, max_file_bytes=2 * 1024**3):
    """Write `*.safetensors` files, and their index if there are several.

    Args:
        directory: Path, which exists.
        sizes: Dict from the name of a tensor to its bytes.
        read: Callable from a name to a numpy array.
        max_file_bytes: int. Largest size of a file with more than one tensor. That
            much is held in memory. Defaults to 2 GiB.
    """
    directory = Path(directory)
    files, room = [[]], max_file_bytes
    for name, needed in sizes.items():
        if needed > room and files[-1]:
            files.append([])
            room = max_file_bytes
        files[-1].append(name)
        room -= needed
    weight_map, total = {}, 0
    for number, names in enumerate(files, start=1):
        file = "model.safetensors"
        if len(files) > 1:
            file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
        tensors = {name: np.ascontiguousarray(read(name)) for name in names}
        total += sum(tensor.nbytes for tensor in tensors.values())
        weight_map |= dict.fromkeys(names, file)
        path = directory / file
        path.touch()  # mode of other new files; safetensors would set 0600
        mode = path.stat().st_mode
        safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(mode)
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(directory / "model.safetensors.index.json", index)


def check_names(directory, expected, found):
    """Compare the names of tensors with those that a model needs.

    Args:
        directory: Where they were found.
        expected: Set of the names that are needed.
        found: Set of the names that there are.

    Raises:
        ValueError: if names are missing or unknown. The error lists them.
    """
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise ValueError(
            f"The weights in {directory} are not those of its config.json. Expected "
            f"{len(expected)} names. Missing: {missing[:5]} ({len(missing)} of them). "
            f"Unknown: {unknown[:5]} ({len(unknown)} of them)."
        )


def numpy_dtype(variable):
    """The numpy dtype of a variable, bfloat16 included."""
    dtype = ml_dtypes.bfloat16 if variable.dtype == "bfloat16" else variable.dtype
    return np.dtype(dtype)


def read_json(path):
    """The object in a JSON file; `{}` without the file.

    Raises:
        ValueError: if it holds anything else; names the file.
    """
    return read_json_object(path) if Path(path).is_file() else {}


def write_json(path, value):
    """Write a value as an indented JSON file."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _safetensors(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        names = list(file.keys())
    return {name: functools.partial(_read_safetensor, path, name) for name in names}


def _read_safetensor(path, name):
    # Opened anew for each weight: its pages stay in memory until the file is closed.
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)  # a copy
