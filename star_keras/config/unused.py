"""Settings that other settings leave without effect."""

from collections.abc import Iterable

from star_keras.utils.errors import invalid
from star_keras.utils.settings import Settings


def refuse_unused(settings: Settings, names: Iterable[str], why: str, remedy: str):
    """Check that settings without effect have their defaults.

    Args:
        settings: An object with the settings.
        names: Names of those without effect.
        why: Why they have none, behind the default: `"without first_classes"`.
        remedy: What to do.

    Raises:
        ValueError: if one has another value than its default.
    """
    for name in names:
        value, default = getattr(settings, name), getattr(type(settings), name)
        if value != default:
            raise invalid(name, f"{default!r} {why}", value, remedy)
