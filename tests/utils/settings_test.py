import dataclasses
import math

import numpy as np
import pytest

from star_keras.utils.settings import (
    Settings,
    free_settings,
    group,
    setting,
    settings_of,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part(Settings):
    """A part."""

    count: int = setting(8, "A count.", at_least=1, on_resume="fixed")
    share: float | None = setting(
        None, "A share.", above=0, at_most=1, on_resume="free"
    )
    color: str = setting("red", "A color.", choices=("red", "blue"), on_resume="free")
    shown: bool = setting(True, "Whether.", on_resume="fixed")
    names: tuple[str, ...] = setting((), "Names.", on_resume="fixed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Settings):
    """The whole."""

    part: Part = group(Part)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 0),
        ("count", 2.0),
        ("count", True),
        ("count", None),
        ("count", "3"),
        ("share", 0),
        ("share", 1.5),
        ("share", math.nan),
        ("share", 10**400),  # beyond all floats
        ("share", True),
        ("color", "green"),
        ("color", None),
        ("shown", 1),
        ("names", "a,b"),
        ("names", (1,)),
    ],
)
def test_invalid_values_are_named_with_their_rule(name, value):
    with pytest.raises(ValueError, match=f"`{name}`. Expected .*Received: {name}="):
        Part(**{name: value})


def test_numbers_of_numpy_become_those_of_python():
    part = Part(count=np.int64(3), share=np.float32(0.5), shown=np.bool_(False))
    assert (type(part.count), type(part.share), part.shown) == (int, float, False)
    assert type(Part(share=1).share) is float


def test_errors_tell_the_bounds():
    with pytest.raises(ValueError, match="`None` or a finite number above 0 and of at"):
        Part(share=-1)
    with pytest.raises(ValueError, match="one of 'red', 'blue'"):
        Part(color="green")


def test_a_needed_setting_must_be_given():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Needing(Settings):
        run_dir: str | None = setting(None, "A path.", is_path=True, is_needed=True)
        names: tuple[str, ...] = setting((), "Names.", is_needed=True)

    Needing(run_dir="x", names=("a",))
    for arguments, name in [
        ({"names": ("a",)}, "run_dir"),
        ({"run_dir": "", "names": ("a",)}, "run_dir"),
        ({"run_dir": "x"}, "names"),
    ]:
        with pytest.raises(ValueError, match=f"--{name} is needed."):
            Needing(**arguments)


def test_a_group_must_be_of_its_class():
    assert Whole().part == Part()
    with pytest.raises(ValueError, match="`part`. Expected a `Part`"):
        Whole(part={"count": 3})


def test_a_field_without_a_rule_is_an_error():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Careless(Settings):
        count: int = 3

    with pytest.raises(TypeError, match="Careless.count is no `setting"):
        settings_of(Careless)


def test_free_settings_come_from_the_fields():
    assert free_settings(Whole) == {"share", "color"}
