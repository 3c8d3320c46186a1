import jax
import keras
import pytest
from keras.distribution import DeviceMesh, LayoutMap, ModelParallel

from star_keras.distribution import current_mesh
from star_keras.sampling.layout import MeshLayout


@pytest.fixture
def distribute():
    """Puts a layout over one device in force, whose rows are split by an axis."""

    def distribute(batch_dim_name):
        mesh = DeviceMesh((1, 1), ("rows", "columns"), jax.devices()[:1])
        layout = ModelParallel(
            layout_map=LayoutMap(mesh), batch_dim_name=batch_dim_name
        )
        keras.distribution.set_distribution(layout)

    yield distribute
    keras.distribution.set_distribution(None)


def test_axes_of_rows_are_those_of_the_distribution(distribute):
    assert current_mesh() is None
    distribute("columns")
    mesh, rows, others = current_mesh()
    assert mesh.axis_names == ("rows", "columns")
    assert (rows, others) == (("columns",), ("rows",))


def test_an_axis_that_the_mesh_has_not_is_an_error(distribute):
    distribute("data")
    message = "`batch_dim_name`. Expected an axis .* 'rows' or 'columns'.*'data'"
    for use in (current_mesh, MeshLayout.current):
        with pytest.raises(ValueError, match=message):
            use()
