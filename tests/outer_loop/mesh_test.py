"""The outer loop over a mesh: checkpoints, resumption, and another mesh then."""

import json

import pytest

from tests.conftest import run_on_eight_devices

MESHES = [
    ("batch:2,model:4", "batch:2,model:4"),
    ("batch:8", "batch:8"),
    ("model:8", "model:8"),
    ("model:8", "batch:4,model:2"),
]


@pytest.fixture(scope="module")
def found():
    return run_on_eight_devices("outer_loop_mesh", json.dumps(MESHES))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), MESHES)
def test_run_that_is_cut_over_a_mesh_ends_like_one_device(found, first, then):
    """The second time it is cut in the second iteration."""
    cut = found[f"{first} {then}"]
    assert cut["codes"] == [75, 75]
    assert cut["losses"] < 1e-5
    assert cut["weights"] < 1e-4
    assert cut["same"]
