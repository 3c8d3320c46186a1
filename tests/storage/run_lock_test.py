"""One lock of a run directory, also among the objects of one process."""

import os

import pytest
from etils import epath

from star_keras.storage.run_lock import RunLock

IN_USE = rf"is in use by another fit of this program \(process {os.getpid()} on "


def test_a_held_lock_refuses_every_object_of_its_process(tmp_path):
    link = tmp_path / "link"
    (tmp_path / "run").mkdir()
    link.symlink_to(tmp_path / "run")
    held = RunLock(epath.Path(tmp_path / "run"))
    held.acquire()
    for lock in (
        RunLock(epath.Path(tmp_path / "run")),
        RunLock(epath.Path(link)),
        held,
    ):
        with pytest.raises(RuntimeError, match=IN_USE):
            lock.acquire()
    held.check()
    held.release()


def test_a_refused_object_does_not_release_the_lock_of_another(tmp_path):
    held, other = RunLock(epath.Path(tmp_path)), RunLock(epath.Path(tmp_path))
    held.acquire()
    other.release()
    with pytest.raises(RuntimeError, match=IN_USE):
        other.acquire()
    held.release()
    assert (tmp_path / "lock").read_text() == ""
    for lock in (other, held):
        lock.acquire()
        lock.release()
