import resource
import shutil
import threading

import jax
import keras
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import serialization

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


def test_a_program_that_donates_the_variables_does_not_change_their_save(
    tmp_path, monkeypatch
):
    """As a training step does, before the first byte is written."""
    release, write = threading.Event(), serialization.async_serialize_from_host

    async def held(*args, **kwargs):
        assert release.wait(60)
        return await write(*args, **kwargs)

    monkeypatch.setattr(serialization, "async_serialize_from_host", held)
    values = np.random.default_rng(0).normal(size=(256, 256)).astype("float32")
    variable = keras.Variable(values)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("a", [variable])
    variable.assign(jax.jit(lambda x: x * 0, donate_argnums=0)(variable.value))
    assert checkpoints.is_saving()
    assert not np.array(variable.value).any()
    release.set()
    checkpoints.restore("a", [variable])
    np.testing.assert_array_equal(variable.value, values)
    assert not checkpoints.is_saving()


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


DAMAGE = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "one bit": lambda path: path.write_bytes(
        path.read_bytes()[:-40]
        + bytes([path.read_bytes()[-40] ^ 16])
        + path.read_bytes()[-39:]
    ),
}


@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_damage_to_any_file_is_noticed_and_changes_no_variable(tmp_path, kind):
    checkpoints = Checkpoints(tmp_path / "c")
    rng = np.random.default_rng(0)
    checkpoints.save("a", [keras.Variable(rng.normal(size=(64, 32)))])
    checkpoints.wait()
    whole = tmp_path / "c" / "a"
    files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    assert len(files) > 8
    for file in files:
        if file.name == "files.json":
            continue
        shutil.copytree(whole, tmp_path / "c" / "b")
        DAMAGE[kind](tmp_path / "c" / "b" / file)
        variable = keras.Variable(np.zeros((64, 32)))
        with pytest.raises(ValueError, match=f"/b is damaged: .*{file.name}"):
            checkpoints.restore("b", [variable])
        assert not np.array(variable.value).any()
        checkpoints.delete("b")


def test_a_save_that_ends_while_it_is_to_be_removed_is_no_error(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")
    partial = checkpoints.directory / "b.orbax-checkpoint-tmp"
    partial.mkdir(parents=True)
    found = checkpoints.unfinished()
    partial.rename(checkpoints.directory / "b")
    monkeypatch.setattr(checkpoints, "unfinished", lambda: found)
    checkpoints.remove_unfinished()
    assert (checkpoints.directory / "b").exists()


def test_a_full_disk_is_named_with_the_remedy(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="make room.*same command again.*/c"):
            rng = np.random.default_rng(0)
            checkpoints.save("a", [keras.Variable(rng.normal(size=(512, 512)))])
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints.names() == Checkpoints(tmp_path / "c").names() == []
    checkpoints.save("a", variables((2,)))  # there is room again
    assert checkpoints.names() == ["a"]


def test_what_a_kill_has_left_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("a", variables((2,)))
    checkpoints.wait()
    (tmp_path / "b.orbax-checkpoint-tmp" / "d").mkdir(parents=True)
    assert [p.name for p in checkpoints.unfinished()] == ["b.orbax-checkpoint-tmp"]
    checkpoints.remove_unfinished()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


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


def test_host_copy_is_committed_to_a_device_only_if_its_array_is():
    """JAX compiles a program again if arguments become committed."""
    array = jax.numpy.ones(3)
    assert not HostCopy(array).to_devices().committed
    committed = jax.device_put(array, jax.devices()[0])
    assert HostCopy(committed).to_devices().committed
