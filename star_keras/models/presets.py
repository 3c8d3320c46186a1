"""The presets of this package."""

import pathlib

_DIRECTORY = pathlib.Path(__file__).parents[1] / "presets"


def preset_names() -> list[str]:
    """The names of the presets of this package, sorted."""
    return sorted(path.name for path in _DIRECTORY.iterdir() if path.is_dir())


def preset_path(preset: str) -> str:
    """The directory of a preset of this package.

    Args:
        preset: Name of the preset, e.g. `"arithmetic_base"`. A directory of the
            same name in the working directory takes precedence. `~` is the user's
            home.

    Returns:
        The path of the directory. `preset` itself, as a string, if it is not the
        name of a preset of this package.
    """
    preset = str(preset)
    if preset.startswith("~"):
        preset = str(pathlib.Path(preset).expanduser())
    if preset in preset_names() and not pathlib.Path(preset).is_dir():
        return str(_DIRECTORY / preset)
    return preset
