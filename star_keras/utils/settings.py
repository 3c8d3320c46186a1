"""Settings said once: dataclasses whose fields carry bounds, help and more.

Validation, command-line flags, the check of a resumed run and the reference
page are all made from the fields.
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from star_keras.utils import files
from star_keras.utils.errors import invalid


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """What is known of a setting besides its name, type and default.

    Attributes:
        help: One sentence for the command line and the reference page.
        on_resume: `"fixed"` if a resumed run must have the same value,
            `"free"` if it may have another, `""` for settings of scripts.
        at_least: Lowest value of a number.
        at_most: Highest value of a number.
        above: Value that a number must exceed.
        below: Value that a number must not reach.
        choices: All values of a string.
        is_path: Whether a string is a path, which is made absolute.
        is_needed: Whether the flag must be given; the default is empty.
    """

    help: str
    on_resume: Literal["fixed", "free", ""] = ""
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    choices: Sequence[str] | None = None
    is_path: bool = False
    is_needed: bool = False

    def describe(self, kind: type) -> str:
        """The values that are valid, for an error or the reference page.

        Args:
            kind: `int`, `float`, `bool`, `str` or `tuple`.
        """
        if self.choices is not None:
            return "one of " + ", ".join(map(repr, self.choices))
        text = {
            int: "an integer",
            float: "a finite number",
            bool: "`True` or `False`",
            str: "a path" if self.is_path else "a string",
            tuple: "a sequence of strings",
        }[kind]
        bounds = []
        if self.above is not None:
            bounds.append(f"above {_shown(self.above)}")
        if self.below is not None:
            bounds.append(f"below {_shown(self.below)}")
        if self.at_least is not None:
            bounds.append(f"of at least {_shown(self.at_least)}")
        if self.at_most is not None:
            bounds.append(f"of at most {_shown(self.at_most)}")
        return " ".join([text, " and ".join(bounds)]).rstrip()

    def admits(self, value) -> bool:
        """Whether a value of the right type is within the bounds."""
        if self.choices is not None:
            return value in self.choices
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def _shown(bound):
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def setting(default, help: str, **kwargs):
    """A field of a `Settings` class.

    Args:
        default: Its default.
        help: See `Rule`.
        **kwargs: The other attributes of `Rule`.
    """
    rule = Rule(help=help, **kwargs)
    return dataclasses.field(default=default, metadata={"rule": rule})


def group(settings: type["Settings"]):
    """A field that holds other settings, at their defaults by default."""
    return dataclasses.field(default_factory=settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """A field of a `Settings` class, ready to use.

    Attributes:
        name: Its name.
        kind: `int`, `float`, `bool`, `str` or `tuple` (of strings).
        optional: Whether `None` is valid.
        default: Its default.
        rule: Its bounds, help and behaviour on resume.
    """

    name: str
    kind: type
    optional: bool
    default: object
    rule: Rule

    def describe(self) -> str:
        """The values that are valid."""
        return ("`None` or " if self.optional else "") + self.rule.describe(self.kind)

    def checked(self, value):
        """The value as its plain Python type.

        Raises:
            ValueError: if it is of another type or out of bounds, or needed and empty.
        """
        if self.rule.is_needed and not value:
            raise ValueError(f"--{self.name} is needed.")
        if value is None and self.optional:
            return None
        converted = _CONVERSIONS[self.kind](value)
        if converted is None or not self.rule.admits(converted):
            raise invalid(self.name, self.describe(), value)
        if self.rule.is_path:
            return str(files.absolute(self.name, converted))
        return converted


def checked(name: str, kind: type, value, **rule):
    """The value of an argument that is not a setting, as its plain Python type.

    Args:
        name: The argument.
        kind: `int`, `float`, `bool`, `str` or `tuple` (of strings).
        value: What was received.
        **rule: Bounds and choices, see `Rule`.

    Raises:
        ValueError: if it is of another type or out of bounds.
    """
    rule = Rule(help="", **rule)
    item = Setting(name=name, kind=kind, optional=False, default=None, rule=rule)
    return item.checked(value)


def _to_int(value):
    is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return int(value) if is_int else None


def _to_float(value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def _to_bool(value):
    return bool(value) if isinstance(value, bool | np.bool_) else None


def _to_str(value):
    return str(value) if isinstance(value, str) else None


def _to_tuple(value):
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return tuple(value) if is_list and all(isinstance(x, str) for x in value) else None


_CONVERSIONS: Mapping[type, Callable] = {
    int: _to_int,
    float: _to_float,
    bool: _to_bool,
    str: _to_str,
    tuple: _to_tuple,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base class: fields made by `setting` are checked when an object is made.

    Numbers of NumPy become those of Python.

    Raises:
        ValueError: if a value breaks the rule of its field, or two values do
            not go together.

    Example:
    ```python
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class DrawConfig(Settings):
        num_problems: int = setting(8, "Problems to draw.", at_least=1)

    DrawConfig(num_problems=3).num_problems  # 3
    ```
    """

    def __post_init__(self):
        for item in settings_of(type(self)):
            value = item.checked(getattr(self, item.name))
            object.__setattr__(self, item.name, value)
        for name, part in groups_of(type(self)).items():
            if not isinstance(getattr(self, name), part):
                raise invalid(name, f"a `{part.__name__}`", getattr(self, name))
        self.check()

    def check(self):
        """Raise a `ValueError` for values that do not go together."""


@functools.cache
def settings_of(cls: type[Settings]) -> list[Setting]:
    """The settings of a class, in their order; groups are left out.

    Raises:
        TypeError: if a field is made by neither `setting` nor `group`.
    """
    hints = typing.get_type_hints(cls)
    found = []
    for field in dataclasses.fields(cls):
        if field.name in groups_of(cls):
            continue
        if "rule" not in field.metadata:
            raise TypeError(f"{cls.__name__}.{field.name} is no `setting()`.")
        kinds = typing.get_args(hints[field.name]) or (hints[field.name],)
        optional = type(None) in kinds
        if typing.get_origin(hints[field.name]) is tuple:
            kinds = (tuple,)
        elif optional or isinstance(hints[field.name], types.UnionType):
            kinds = tuple(kind for kind in kinds if kind is not type(None))
        (kind,) = kinds
        found.append(
            Setting(
                name=field.name,
                kind=kind,
                optional=optional,
                default=field.default,
                rule=field.metadata["rule"],
            )
        )
    return found


@functools.cache
def groups_of(cls: type[Settings]) -> dict[str, type[Settings]]:
    """The fields of a class that hold other settings."""
    return {
        name: kind
        for name, kind in typing.get_type_hints(cls).items()
        if isinstance(kind, type) and issubclass(kind, Settings)
    }


def checked_setting(cls: type[Settings], setting_name: str, value, argument: str = ""):
    """The value of an argument that follows the rule of a setting.

    Args:
        cls, setting_name: Class and name of the setting.
        value: The value.
        argument: The name of the argument. Defaults to that of the setting.

    Raises:
        ValueError: see `checked`.
    """
    (item,) = (item for item in settings_of(cls) if item.name == setting_name)
    return dataclasses.replace(item, name=argument or setting_name).checked(value)


def free_settings(cls: type[Settings]) -> set[str]:
    """Names of the settings in the groups of a class that a resumed run may change."""
    return {
        item.name
        for part in groups_of(cls).values()
        for item in settings_of(part)
        if item.rule.on_resume == "free"
    }
