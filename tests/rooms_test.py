"""The rooms of the package: imports point upward only."""

import ast

import pytest

from tests.conftest import ROOT

# A module imports from its own room and from those before it.
ROOMS = [
    "utils",
    "config",
    "tasks",
    "distribution",
    "training",
    "models",
    "sampling",
    "planning",
    "storage",
    "outer_loop",
    "serving",
    "callbacks",
    "integrations",
    "testing",
]
PACKAGE = ROOT / "star_keras"
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0]


def imported_rooms(path):
    """Rooms of our own package that a module imports from, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "star_keras" and rest:
                yield rest[0]


def test_all_rooms_are_listed():
    found = {room_of(path) for path in MODULES}
    assert found == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_from_rooms_before_its_own(path):
    allowed = ROOMS[: ROOMS.index(room_of(path)) + 1]
    assert set(imported_rooms(path)) <= set(allowed)
