"""The file `config.json` of a run directory: the run's configuration."""

import json

import jax

from star_keras.distribution import processes
from star_keras.utils import files
from star_keras.utils.differences import differences
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import read_json_object

# The layout of a run directory; another layout is refused.
LAYOUT = 3


def run_directory_path(path):
    """The absolute path of a run directory, an `etils.epath.Path`.

    Args:
        path: The directory, local or `gs://`; `~` is the user's home.

    Raises:
        ValueError: if the path is empty or that of a file.
    """
    directory = files.absolute("run_dir", path)
    if directory.exists() and not directory.is_dir():
        raise invalid("run_dir", "a directory, not a file", str(path))
    return directory


def make_run_directory(directory):
    """Make a directory, if it is not one of another layout.

    Args:
        directory: The run directory, an `etils.epath.Path`.

    Raises:
        ValueError: see `read_configuration`; if it cannot be made.
    """
    read_configuration(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"a directory that can be made ({error.strerror})"
        raise invalid("run_dir", rule, str(directory), "Name another.") from error


def settle_configuration(directory, config: dict, free=frozenset()):
    """Write a run's configuration, or check that the run began with the same.

    Args:
        directory: The run directory, an `etils.epath.Path`.
        config: Groups of named values, as JSON.
        free: Names whose values may differ.

    Raises:
        ValueError: if other values differ, or the processes of the run do not share
            the directory or have different configurations.
        OSError: if it cannot be written.
    """
    _check_shared(directory)
    config = json.loads(json.dumps({"layout": LAYOUT, **config}))
    processes.check_same(config)
    found = read_configuration(directory)
    processes.sync("the configuration is read")
    if found is not None:
        check_configuration(directory, found, config, free)
    if found != config and processes.is_writer():
        text = json.dumps(config, indent=2) + "\n"
        files.write(directory / "config.json", text.encode("utf-8"))


def _check_shared(directory):
    """All processes must see the files of the writer, or they wait forever."""
    if jax.process_count() == 1:
        return
    token = processes.token()
    path = directory / "token"
    if processes.is_writer():
        files.write(path, token)
    processes.sync("the run directory is there")
    if not path.exists() or path.read_bytes() != token:
        raise ValueError(
            "Invalid value for argument `run_dir`. Expected a directory that all "
            f"processes of the run share. Received: run_dir={str(directory)!r}, "
            "where this process does not find what process 0 wrote. Use a "
            "network file system or a bucket."
        )
    processes.sync("the run directory is shared")
    if processes.is_writer():
        path.unlink()


def read_configuration(directory) -> dict | None:
    """What `config.json` of a run directory holds; `None` without it.

    Args:
        directory: The run directory, an `etils.epath.Path`.

    Raises:
        ValueError: if the file is damaged or not that of a run, or the directory has
            another layout.
    """
    path = directory / "config.json"
    if not path.exists():
        return None
    try:
        found = read_json_object(path)
    except ValueError as error:
        raise ValueError(
            f"{error} Put the file back, or remove it: the same command writes it "
            "again, without the check that the configuration is the same."
        ) from None
    if "layout" not in found:
        raise ValueError(
            f"{path} is not the configuration of a run of this version: it has no "
            "`layout`. Another command has written it, or star-keras 0.1. Put the file "
            "of the run back, or use another run_dir. If a run of this version began "
            "here, remove the file: the same command writes it again, without the "
            "check that the configuration is the same."
        )
    if found["layout"] != LAYOUT:
        raise ValueError(
            f"The run directory {directory} was written by another version of "
            f"star-keras: its layout is {found['layout']!r}, this version "
            f"reads layout {LAYOUT}. Use another run_dir, or the version that "
            "began the run."
        )
    return found


def check_configuration(directory, found: dict, config: dict, free):
    """Check that a run goes on with the configuration that it began with.

    Args:
        directory: The run directory, for the error.
        found: The configuration there, groups of named values.
        config: That of this process.
        free: Names whose values may differ.

    Raises:
        ValueError: if other values differ; names them.
    """
    here, there = _flat(config), _flat(found)
    differing = [
        difference
        for name in sorted(here.keys() | there.keys())
        if name not in free
        for difference in differences(name, there.get(name), here.get(name))
    ]
    if not differing:
        return
    remedy = "Continue with the same configuration, or use another directory."
    if [text.partition(":")[0] for text in differing] == ["base_weights_crc32"]:
        remedy += (
            " If this model was trained already, e.g. by an earlier run of the same "
            "notebook cell: load the base model again and compile it, and the same "
            "call goes on."
        )
    raise ValueError(
        f"The run directory {directory} is of another configuration "
        f"({'; '.join(differing)}). {remedy}"
    )


def _flat(config):
    """Named values by name, without the groups."""
    flat = {}
    for name, value in config.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
