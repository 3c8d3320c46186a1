from etils import epath

from star_keras.storage.iteration_names import (
    iteration_directories,
    iteration_name,
    iteration_of,
    state_name,
    state_of,
)


def test_the_name_of_an_iteration_is_read_as_its_number():
    for iteration in (0, 7, 12_345):
        assert iteration_of(iteration_name(iteration)) == iteration
    assert state_of(state_name(7, 500)) == (7, 500)
    for name in ("notes", "iteration_0007_copy", "my_iteration_0007", state_name(7, 5)):
        assert iteration_of(name) is None
    assert state_of(iteration_name(7)) is state_of(f"{state_name(7, 5)}_copy") is None


def test_directories_are_in_the_order_of_their_iterations(
    tmp_path,
):
    root = epath.Path(tmp_path)
    for name in ("iteration_10000", "iteration_0002", "iteration_0002_old", "0003"):
        (root / name).mkdir()
    found = iteration_directories(root)
    assert list(found) == [2, 10_000]
    assert found[2] == root / "iteration_0002"
    assert iteration_directories(root / "missing") == {}
