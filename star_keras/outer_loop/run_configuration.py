"""The file `config.json` of a run directory: the run's configuration."""

from star_keras.utils.json_lines import read_json_object

# The layout of a run directory; another layout is refused.
LAYOUT = 3


def read_configuration(directory) -> dict | None:
    """What `config.json` of a run directory holds; `None` without it.

    Args:
        directory: The run directory, an `etils.epath.Path`.

    Raises:
        ValueError: if the file is damaged, or the directory has another layout.
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
    if found.get("layout") != LAYOUT:
        raise ValueError(
            f"The run directory {directory} was written by another version of "
            f"star-keras: its layout is {found.get('layout', 1)!r}, this version "
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
        f"{name}: {there.get(name)!r} there, {here.get(name)!r} here"
        for name in sorted(here.keys() | there.keys())
        if name not in free and here.get(name) != there.get(name)
    ]
    if not differing:
        return
    remedy = "Continue with the same configuration, or use another directory."
    if "base_weights_crc32" in " ".join(differing):
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
        # Deeper values, e.g. of an optimizer, are compared as a whole.
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
