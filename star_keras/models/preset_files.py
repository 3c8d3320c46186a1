"""The files of a Keras preset: whole, and none missing."""

import pathlib

import h5py
from keras_hub.models import CausalLM
from keras_hub.src.utils import preset_utils

from star_keras.utils.json_lines import read_json_object

_GIT_LFS = b"version https://git-lfs"


def check_files(directory):
    """Check that the files of a local directory are whole.

    Args:
        directory: The directory. No-op if there is none.

    Raises:
        ValueError: if a file is a Git LFS pointer, a JSON file does not hold an
            object, or an HDF5 file is truncated; names it.
    """
    directory = pathlib.Path(directory)
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(len(_GIT_LFS)) == _GIT_LFS:
                raise ValueError(
                    f"{path} is a Git LFS pointer in place of the file. Run "
                    f"`git lfs pull` in {directory}, or download the file itself."
                )
        if path.suffix == ".json":
            try:
                read_json_object(path)
            except ValueError as error:
                raise ValueError(f"{error} Copy the file again.") from None
        elif path.suffix == ".h5":
            try:
                h5py.File(path).close()
            except OSError as error:
                raise ValueError(
                    f"{path} is no whole HDF5 file: {error}. Copy it again."
                ) from error


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
