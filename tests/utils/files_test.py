import os

import pytest
from etils import epath

from star_keras.utils import files


def test_a_file_of_an_owner_without_a_name_has_a_size(tmp_path):
    if os.geteuid():
        pytest.skip("only root gives files away")
    path = epath.Path(tmp_path / "a")
    files.write(path, b"four")
    os.chown(path, 54_321, 54_321)
    assert files.size(path) == 4


def test_a_home_that_is_not_known_is_an_error(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ValueError, match="`run_dir`. Expected a path in a home that"):
        files.absolute("run_dir", "~/run")


def test_a_file_is_replaced_as_a_whole_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write(path, b"first")
    files.write(path, b"second")
    files.append(path, b" and more")
    assert path.read_bytes() == b"second and more"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write(path, b"first")
    # What is written to /dev/full finds no space.
    (tmp_path / "a.json.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left.*make room.*same command.*a.json"):
        files.write(path, b"second")
    assert path.read_bytes() == b"first"
    (tmp_path / "b.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left.*b.json"):
        files.append(tmp_path / "b.json", b"more")


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"make the directory writable.*file/a\.json"):
        files.write(tmp_path / "file" / "a.json", b"")
