import jax
import keras
import numpy as np
import pytest

from star_keras.distribution.checkpoints import Checkpoints
from star_keras.distribution.processes import HostCopy
from tests.conftest import run_on_eight_devices


def variables(*shapes, dtype="float32"):
    return [
        keras.Variable(np.full(shape, n + 1), dtype=dtype)
        for n, shape in enumerate(shapes)
    ]


def test_saved_variables_come_back(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.names() == []
    saved = [*variables((2, 3), ()), *variables((4,), dtype="bfloat16")]
    saved.append(keras.Variable([3, 4], dtype="uint32"))
    checkpoints.save("b", saved)
    expected = [np.array(v.value) for v in saved]
    for variable in saved:  # while it is being saved
        variable.assign(variable * 0)
    checkpoints.save("a", saved)
    checkpoints.restore("b", saved)
    for variable, value in zip(saved, expected, strict=True):
        assert variable.value.dtype == value.dtype
        np.testing.assert_array_equal(np.array(variable.value), value)
    assert checkpoints.names() == ["a", "b"]
    checkpoints.delete("b")
    assert checkpoints.names() == ["a"]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([(2,)], "missing there|none here"),
        ([(2,), (3,), (4,)], "missing there"),
        ([(2,), (5,)], r"\(\(3,\), .*float32.*\) there, \(\(5,\), "),
    ],
)
def test_other_variables_are_named_and_not_changed(tmp_path, others, message):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("a", variables((2,), (3,)))
    others = variables(*others)
    before = [np.array(v.value) for v in others]
    with pytest.raises(ValueError, match=message):
        checkpoints.restore("a", others)
    for variable, value in zip(others, before, strict=True):
        np.testing.assert_array_equal(variable.value, value)


def test_missing_and_damaged_checkpoints_are_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("a", variables((2,)))
    checkpoints.wait()
    with pytest.raises(ValueError, match=r"/b is missing. There are \['a'\]"):
        checkpoints.restore("b", variables((2,)))
    (tmp_path / "a" / "_METADATA").write_text("{")
    with pytest.raises(ValueError, match="/a is damaged: .*/a/_METADATA has 1 bytes"):
        checkpoints.restore("a", variables((2,)))


def test_checkpoints_and_host_copies_keep_the_layout_of_the_variables():
    """Saved on a mesh of 2 x 4, restored on one of 1 x 8."""
    assert run_on_eight_devices("distribution_checkpoints") == {
        "devices": 8,
        "before": False,
        "restored": True,
        "zeros": False,
        "copied": True,
    }


def test_host_copy_outlives_its_array():
    array = jax.numpy.arange(6.0).reshape(2, 3)
    copy = HostCopy(array)
    array.delete()
    np.testing.assert_array_equal(copy.to_devices(), [[0, 1, 2], [3, 4, 5]])
