"""From a string like `"batch:2,model:4"` to a Keras distribution."""

import math

import keras

from star_keras.distribution.layouts import gpt_j_layout_map


def parse_mesh(mesh: str) -> dict[str, int]:
    """Axis sizes of a mesh string, e.g. `{"batch": 2, "model": 4}`.

    Raises:
        ValueError: if the string is not `batch:N,model:N`, in either order,
            with one of the two left out or not.
    """
    axes = {"batch": 1, "model": 1}
    seen = set()
    for part in mesh.split(","):
        name, _, size = part.strip().partition(":")
        if name not in axes or name in seen or not size.isdecimal() or int(size) < 1:
            raise ValueError(
                "Invalid value for argument `mesh`. Expected axes and their "
                'sizes like "batch:2,model:4". '
                f"Received: mesh={mesh!r}."
            )
        seen.add(name)
        axes[name] = int(size)
    return axes


def model_parallel(mesh: str, devices=None) -> keras.distribution.ModelParallel:
    """Distribution of a GPT-J over a mesh of devices.

    Args:
        mesh: Sizes of the axes, e.g. `"batch:2,model:4"`: rows are split over
            `batch`, weights over `model`.
        devices: Names of the devices. Defaults to all.

    Returns:
        A `keras.distribution.ModelParallel` for
        `keras.distribution.set_distribution`, before the model is made.

    Raises:
        ValueError: if the mesh is malformed, or of another size than the
            number of devices.
    """
    axes = parse_mesh(mesh)
    devices = devices or keras.distribution.list_devices()
    if math.prod(axes.values()) != len(devices):
        raise ValueError(
            f"The mesh {mesh!r} has {math.prod(axes.values())} places, but there "
            f"are {len(devices)} devices. Expected sizes whose product is "
            f"{len(devices)}."
        )
    device_mesh = keras.distribution.DeviceMesh(
        shape=tuple(axes.values()), axis_names=list(axes), devices=devices
    )
    return keras.distribution.ModelParallel(
        layout_map=gpt_j_layout_map(device_mesh), batch_dim_name="batch"
    )
