import json
import sys

import pytest

from star_keras import planning
from tests import forks

TOPOLOGIES = ("v3-8", "v4-32", "v5e-64", "v6e:2x4")


@pytest.fixture(scope="module")
def on_tpus():
    """What `planning_tpus` prints. It keeps libtpu out of this process."""
    pytest.importorskip("libtpu")
    done = forks.run("planning_tpus", *TOPOLOGIES)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_matrix_product_is_estimated_near_the_peak(on_tpus, name):
    """With a wrong clock or peak of the chip it would not be."""
    found = on_tpus[name]
    assert found["fits"]
    assert 0.8 < found["share_of_peak"] < 1
    assert found["memory"]["arguments"] == 2 * 4096 * (2**13 + 4096)


@pytest.mark.slow
def test_a_program_that_is_too_large_does_not_fit(on_tpus):
    found = on_tpus["too_large"]
    assert not found["fits"]
    rows_in_and_out = 2 * 2**22 * 4096 * 2
    assert found["memory"]["total"] > rows_in_and_out


@pytest.mark.slow
def test_names_of_google_cloud_count_cores_of_v3_and_v4_and_chips_of_v5e(on_tpus):
    """JAX makes one device of a v3 core, and of a v4 chip with its two cores."""
    devices = {name: on_tpus[name]["devices"] for name in TOPOLOGIES}
    assert devices == {"v3-8": 8, "v4-32": 16, "v5e-64": 64, "v6e:2x4": 8}


@pytest.mark.slow
def test_an_unknown_topology_is_refused(on_tpus):
    assert "topology='v3-7'" in on_tpus["error"]
    assert "v5e:2x4" in on_tpus["error"]


@pytest.mark.slow
def test_compiling_for_tpus_leaves_the_devices_of_jax_alone(on_tpus):
    assert on_tpus["jax"] == ["cpu"]


def test_topologies_need_libtpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(ImportError, match=r"pip install .*tpu-plan"):
        planning.tpu_devices("v3-8")
