"""The files of a Keras preset: whole, and none missing."""

import fnmatch
import pathlib

import h5py
import safetensors
from keras_hub.models import CausalLM
from keras_hub.src.utils import preset_utils

from star_keras.models.config_fields import check_fields
from star_keras.utils.json_lines import read_json_object

# Names of the files that are read. Others in the directory are the user's.
_READ = (
    *("config.json", "task.json", "preprocessor.json", "metadata.json"),
    *("model.weights.json", "model.weights.h5", "model_*.weights.h5"),
    *("task.weights.h5", "model*.safetensors", "model.safetensors.index.json"),
    *("pytorch_model*.bin", "pytorch_model.bin.index.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "vocabulary.json", "merges.txt"),
)
_GIT_LFS = b"version https://git-lfs"


def check_files(directory):
    """Check that the files of a local preset or Hugging Face directory are whole.

    Other files in the directory do not matter.

    Args:
        directory: The directory, or one file of it. No-op if there is none.

    Raises:
        ValueError: if a file is a Git LFS pointer, a JSON file does not hold an
            object, an HDF5 or safetensors file is truncated, a vocabulary is empty,
            or a field of transformers has a value of another type or out of bounds,
            see `check_fields`; names the file.
    """
    directory = pathlib.Path(directory)
    paths = [directory]
    if directory.is_dir():
        # KerasHub keeps tokenizers in folders of their own.
        paths = [*directory.iterdir(), *directory.glob("assets/*/*")]
    for path in sorted(paths):
        is_read = any(fnmatch.fnmatch(path.name, name) for name in _READ)
        if path.is_file() and is_read:
            _check_file(path)


def _check_file(path):
    with path.open("rb") as file:
        if file.read(len(_GIT_LFS)) == _GIT_LFS:
            raise ValueError(
                f"{path} is a Git LFS pointer in place of the file. Run `git lfs pull` "
                f"in {path.parent}, or download the file itself."
            )
    try:
        if path.suffix == ".json":
            _check_json(path, read_json_object(path))
        elif path.suffix == ".h5":
            h5py.File(path).close()
        elif path.suffix == ".safetensors":
            # Reads the header, and compares the size.
            with safetensors.safe_open(path, "np"):
                pass
        elif path.name == "merges.txt" and not path.read_text(encoding="utf-8").strip():
            raise ValueError("it has no merges")
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} is damaged: {str(error).removeprefix(f'{path}: ')} Copy the file "
            "again."
        ) from error


def _check_json(path, content):
    if path.name == "vocab.json" and not content:
        raise ValueError("it has no tokens.")
    model = content.get("model")
    is_tokenizer = path.name == "tokenizer.json" and isinstance(model, dict)
    if is_tokenizer and not model.get("vocab"):
        raise ValueError("its vocabulary is empty.")
    check_fields(path.name, content)


def check_head(model: CausalLM, preset: str):
    """Check that a preset had the weights of a model's head.

    KerasHub leaves a head random whose files are missing.

    Args:
        model: The model that was loaded from the preset.
        preset: Directory, name or handle of the preset.

    Raises:
        FileNotFoundError: if the head has weights of its own, and the preset has
            no `task.json` of a causal LM or no `task.weights.h5`.
    """
    if not model.has_task_weights():
        return
    names = preset_utils.TASK_CONFIG_FILE, preset_utils.TASK_WEIGHTS_FILE
    missing = [n for n in names if not preset_utils.check_file_exists(preset, n)]
    if missing:
        raise FileNotFoundError(
            f"The preset {preset} has no {' and no '.join(missing)}. Without them the "
            f"head of this {type(model).__name__} would stay random. Copy the whole "
            "preset, or save it again with `save_to_preset`."
        )
    config = preset_utils.load_json(preset, names[0])
    found = preset_utils.check_config_class(config)
    if not issubclass(found, CausalLM):
        raise FileNotFoundError(
            f"The preset {preset} holds the head of a {found.__name__}, and none of "
            "a causal LM."
        )
