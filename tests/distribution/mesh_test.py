from types import SimpleNamespace

import keras
import pytest

from star_keras.distribution import model_parallel, parse_mesh, row_parts


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
    ("mesh", "axes", "rows"),
    (
        ("slice:2,batch:8,model:4", {"slice": 2, "batch": 8, "model": 4}, 16),
        ("model:4,slice:2", {"slice": 2, "batch": 1, "model": 4}, 2),
        ("slice:1,batch:4", {"slice": 1, "batch": 4, "model": 1}, 4),
        ("batch:4,model:2", {"batch": 4, "model": 2}, 4),
    ),
)
def test_slices_come_first_and_split_rows_with_the_batch_axis(mesh, axes, rows):
    found = parse_mesh(mesh)
    assert list(found.items()) == list(axes.items())
    assert row_parts(found) == rows


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
        "slices:2,batch:4",
        "slice:0,batch:4",
        "slice:2,slice:2",
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


@pytest.mark.parametrize("zero", (False, True))
def test_rows_are_split_over_slices_and_batch_and_weights_within_a_slice(zero):
    distribution = model_parallel("slice:2,batch:2,model:2", zero=zero, devices=DEVICES)
    assert distribution.device_mesh.shape == (2, 2, 2)
    assert distribution.device_mesh.devices[0].tolist() == [DEVICES[:2], DEVICES[2:4]]
    assert distribution.num_model_replicas == 4
    assert distribution.get_data_layout((8, 128)).axes == (("slice", "batch"), None)
    with pytest.raises(ValueError, match="6 rows .* 4 devices .*slice and batch"):
        distribution.get_data_layout((6, 128))
    weight = SimpleNamespace(path="lm_head/kernel", shape=(32, 64))
    axes = distribution.get_variable_layout(weight).axes
    assert axes == ("batch" if zero else None, "model")


def tpus(*slices):
    """Devices with the attributes of TPUs in these slices."""
    return [SimpleNamespace(platform="tpu", slice_index=at, id=at) for at in slices]


@pytest.mark.parametrize("mesh", ("batch:8", "slice:1,batch:8", "slice:4,batch:2"))
def test_slices_of_a_mesh_are_those_of_the_tpus(mesh):
    devices = tpus(0, 0, 0, 0, 1, 1, 1, 1)
    listed = "2 TPU slices: 4 in slice 0, 4 in slice 1. Expected slice:2"
    with pytest.raises(ValueError, match=f"{mesh}.*{listed}"):
        model_parallel(mesh, devices=devices)
    split = model_parallel("slice:2,batch:4", devices=devices)
    assert split.device_mesh.devices[1].ravel().tolist() == devices[4:]


@pytest.mark.parametrize("slices", [(0, 1, 0, 1), (0, 0, 0, 1)])
def test_devices_are_slice_by_slice(slices):
    with pytest.raises(ValueError, match="slice by slice, 2 of each"):
        model_parallel("slice:2,batch:2", devices=tpus(*slices))


def test_one_tpu_slice_is_not_two():
    with pytest.raises(ValueError, match="1 TPU slices: 4 in slice 0. .* slice:1"):
        model_parallel("slice:2,batch:2", devices=tpus(0, 0, 0, 0))
