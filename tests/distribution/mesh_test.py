import keras
import pytest

from star_keras.distribution import model_parallel, parse_mesh


@pytest.mark.parametrize(
    ("mesh", "batch", "model"),
    (
        ("batch:2,model:4", 2, 4),
        ("model:4,batch:2", 2, 4),
        ("batch:8", 8, 1),
        ("model:256", 1, 256),
        (" batch:2 , model:1 ", 2, 1),
    ),
)
def test_mesh_gives_the_sizes_of_both_axes(mesh, batch, model):
    axes = parse_mesh(mesh)
    assert axes == {"batch": batch, "model": model}
    assert list(axes) == ["batch", "model"]


@pytest.mark.parametrize(
    "mesh",
    (
        "",
        "8",
        "batch",
        "batch:",
        "batch:0",
        "batch:-1",
        "batch:2.0",
        "batch:two",
        "batch:2;model:4",
        "batch:2,model:4,",
        "batch:2,batch:4",
        "batch:2,heads:4",
        "batch=2,model=4",
    ),
)
def test_malformed_mesh_is_an_error_that_shows_it(mesh):
    with pytest.raises(ValueError, match="argument `mesh`.*batch:2,model:4") as error:
        parse_mesh(mesh)
    assert f"mesh={mesh!r}" in str(error.value)
    with pytest.raises(ValueError, match="argument `mesh`"):
        model_parallel(mesh, devices=["cpu:0"])


DEVICES = [f"cpu:{i}" for i in range(8)]


@pytest.mark.parametrize("mesh", ("batch:2,model:2", "batch:3,model:4", "model:1"))
def test_mesh_of_another_size_is_an_error_that_names_both_numbers(mesh):
    axes = parse_mesh(mesh)
    places = axes["batch"] * axes["model"]
    with pytest.raises(ValueError, match=rf"{mesh}.* {places} places.* 8 devices"):
        model_parallel(mesh, devices=DEVICES)


def test_mesh_takes_all_devices_unless_told_which():
    count = len(keras.distribution.list_devices())
    distribution = model_parallel(f"batch:{count}")
    assert distribution.device_mesh.devices.size == count


def test_rows_are_split_over_the_batch_axis():
    distribution = model_parallel("batch:2,model:4", devices=DEVICES)
    assert isinstance(distribution, keras.distribution.ModelParallel)
    assert distribution.device_mesh.shape == (2, 4)
    assert distribution.device_mesh.axis_names == ["batch", "model"]
    assert distribution.device_mesh.devices.tolist() == [DEVICES[:4], DEVICES[4:]]
    assert distribution.get_data_layout((8, 128)).axes == ("batch", None)
