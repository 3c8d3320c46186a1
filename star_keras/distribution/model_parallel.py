"""Distribution of causal LMs over a mesh, with a checked layout for every weight."""

import math
import re

import jax
import keras
from keras.src.backend.common import global_state

from star_keras.distribution.layouts import causal_lm_layout_map, is_replicated
from star_keras.distribution.mesh import (
    ROW_AXES,
    check_slices,
    parse_mesh,
    row_parts,
    slice_of,
)

# Paths of layer outputs of the shape (batch, length, hidden_dim).
_HIDDEN_STATES = r"(.*/)?(token_embedding|(transformer_layer|decoder_block)_\d+)/output"
_EMBEDDING = "token_embedding[/_]embeddings"


def model_parallel(mesh: str, *, zero=False, devices=None) -> "CausalLMParallel":
    """Distribution of a causal LM over a mesh of devices.

    `"batch:2,model:4"` splits rows over `batch` and weights over `model`;
    `"batch:8"` is data parallelism. `"slice:2,batch:8,model:8"` also splits rows over
    two TPU slices. Each slice holds all weights; only gradients and a few sums cross
    slices in a training step.

    Args:
        mesh: Sizes of the axes, see `parse_mesh`.
        zero: Whether to split weights, gradients and the optimizer's moments over
            `batch` as well, see `CausalLMParallel`. Defaults to `False`.
        devices: optional list of devices or their names, in the order of the mesh.
            `slice` is the slowest axis, `model` the fastest. Defaults to all
            devices, slice by slice and process by process.

    Returns:
        A `CausalLMParallel`. Pass it to `keras.distribution.set_distribution`
        before the model is made.

    Raises:
        ValueError: if the mesh is malformed, or its size is not the number of
            devices, or `slice` not the number of TPU slices.

    Example:
    ```
    keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
    model = load_causal_lm("llama3_8b_en")
    ```
    """
    axes = parse_mesh(mesh)
    if not devices:
        # As in Keras, the first process has the first rows of a batch.
        # (`create_hybrid_device_mesh` would split these rows over two processes.)
        devices = sorted(
            jax.devices(), key=lambda d: (slice_of(d), d.process_index, d.id)
        )
    if math.prod(axes.values()) != len(devices):
        raise ValueError(
            f"The mesh {mesh!r} has {math.prod(axes.values())} places, but there "
            f"are {len(devices)} devices. Expected sizes whose product is "
            f"{len(devices)}."
        )
    check_slices(mesh, axes.get("slice", 1), devices)
    device_mesh = keras.distribution.DeviceMesh(
        shape=tuple(axes.values()), axis_names=list(axes), devices=devices
    )
    return CausalLMParallel(device_mesh, zero=zero)


class _RowsLayout(keras.distribution.TensorLayout):
    """Layout of rows over several axes of a mesh. Keras's knows one a dimension."""

    @property
    def axes(self):
        return (ROW_AXES, *super().axes[1:])


class CausalLMParallel(keras.distribution.ModelParallel):
    """Splits the weights of a causal LM over `model`, and its rows over `batch`.

    With an axis `slice`, rows are split over `slice` and `batch` together; weights are
    never split over `slice`.

    Heads, the MLP's width and the vocabulary are split over `model`, see
    `causal_lm_layout_map`. Two kinds of weights have a fallback:

    - Fewer key-value heads than devices of `model` are replicated, if their number
      divides the number of these devices.
    - An embedding whose vocabulary does not divide, e.g. GPT-2's 50,257 tokens, is
      split by its width. `zero` leaves it as it is.

    `zero` also splits every weight of two axes or more over `batch`, along its first
    free axis that divides. Gradients and optimizer slots have the layout of their
    weight. Each device holds `1 / devices` of all weights and moments, and gathers a
    weight for each use.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh` with the axes `batch`
            and `model`, and perhaps `slice` before them.
        zero: bool. Whether to split over `batch` too. Defaults to `False`.

    Raises:
        ValueError: when a variable is made whose size does not divide; or, in `fit`,
            `check_layouts` and samplers, for weights without a known layout.

    Reference:
        [ZeRO](https://arxiv.org/abs/1910.02054), stage 3.
    """

    def __init__(self, device_mesh, *, zero=False):
        self._sizes = dict(zip(device_mesh.axis_names, device_mesh.shape, strict=True))
        super().__init__(
            layout_map=causal_lm_layout_map(device_mesh),
            batch_dim_name=ROW_AXES if "slice" in self._sizes else "batch",
        )
        self.zero = zero
        self._unknown = {}

    @property
    def num_model_replicas(self):
        return row_parts(self._sizes)

    def get_variable_layout(self, variable):
        # A layout of the user for this variable takes precedence.
        if getattr(variable, "_layout", None) is not None:
            return variable._layout
        path, shape = variable.path, tuple(variable.shape)
        axes = self._model_axes(path, shape)
        if self.zero and len(shape) > 1:
            axes = self._with_batch_axis(axes, path, shape)
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def get_tensor_layout(self, path):
        # With `zero` XLA would otherwise split hidden states by their width, like
        # the weights, and compute all rows on every device.
        context = global_state.get_global_attribute("current_call_ctx")
        training = self.zero and getattr(context, "training", False)
        if training and re.fullmatch(_HIDDEN_STATES, path):
            return self._rows_layout(3)
        return super().get_tensor_layout(path)

    def get_data_layout(self, data_shape):
        self.check_layouts()
        # The shape is that of this process's rows.
        size = max(self.num_model_replicas // self.num_processes, 1)
        axes = [name for name in ROW_AXES if name in self._sizes]
        if data_shape[0] % size:
            raise ValueError(
                f"A batch of {data_shape[0]} rows does not divide by the {size} "
                f"devices of the mesh's {' and '.join(axes)}. "
                f"{_nearest(data_shape[0], size)}"
            )
        return self._rows_layout(len(data_shape))

    def check_layouts(self):
        """Check that every weight made so far has a known layout.

        Raises:
            ValueError: if weights would lie whole on every device of `model`. The
                error names them all.
        """
        if self._unknown:
            listed = "\n".join(f"  {path} {s}" for path, s in self._unknown.items())
            raise ValueError(
                f"These weights would be replicated on all {self._sizes['model']} "
                f"devices of the mesh's axis 'model':\n{listed}\n"
                "Layouts are known for the families of the fast way, see "
                "docs/models.md. Use a mesh without `model`, or a "
                "`keras.distribution.ModelParallel` with a layout map of your own."
            )

    def without_zero(self, values, variables):
        """Values in the layout of `zero=False`, to be used many times.

        Args:
            values: list of arrays, the values of `variables`.
            variables: list of Keras variables of this distribution.

        Returns:
            A list of arrays, gathered over `batch`. `values` unchanged without
            `zero`, or if the gathered arrays would take more than half of a
            device's memory.
        """
        if not self.zero:
            return values
        shardings = [
            keras.distribution.TensorLayout(
                self._model_axes(v.path, tuple(v.shape)), self.device_mesh
            ).backend_layout
            for v in variables
        ]
        needed = sum(
            math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize
            for s, x in zip(shardings, values, strict=True)
        )
        # The limit, unlike the memory in use, is the same in every process.
        memory = self.device_mesh.backend_mesh.local_devices[0].memory_stats()
        if memory and needed > memory["bytes_limit"] // 2:
            return values
        return jax.jit(lambda x: x, out_shardings=shardings)(values)

    def for_lookup(self, variable, value):
        """An embedding in the layout of `zero=False`, if there are slices.

        From an embedding split over `batch` XLA would look up the rows of all slices,
        and exchange them.

        Args:
            variable: Keras variable of this distribution.
            value: Traced array, its value.

        Returns:
            The array. Unchanged for other variables, and without `zero` or slices.
        """
        is_embedding = re.search("embedding[/_]embeddings", variable.path)
        if not (is_embedding and self.zero and self._sizes.get("slice", 1) > 1):
            return value
        axes = self._model_axes(variable.path, tuple(variable.shape))
        layout = keras.distribution.TensorLayout(axes, self.device_mesh)
        return keras.distribution.distribute_tensor(value, layout)

    def _rows_layout(self, rank):
        """Layout of an array of rows, with `rank` axes."""
        rest = [None] * (rank - 1)
        if "slice" in self._sizes:
            return _RowsLayout([None, *rest], self.device_mesh)
        return keras.distribution.TensorLayout(["batch", *rest], self.device_mesh)

    def _model_axes(self, path, shape):
        """Mesh axes of a variable without `zero`."""
        layout = self._layout_map[path]
        size = self._sizes["model"]
        if len(shape) == 2 and re.search("attention_output[/_]kernel", path):
            axes = ["model", None]  # GPT-NeoX: heads and their sizes are one axis
        # Some optimizers have slots that are not shaped like their weight.
        elif layout is None or len(layout.axes) != len(shape):
            large = layout is None and size > 1 and len(shape) > 1
            if large and not is_replicated(path):
                self._unknown[path] = shape
            return [None] * len(shape)
        else:
            axes = list(layout.axes)
        at = axes.index("model")
        if shape[at] % size == 0:
            return axes
        if re.search(_EMBEDDING, path) and shape[1] % size == 0:
            return [None, "model"]
        if re.search("(key|value)[/_](kernel|bias)", path) and size % shape[at] == 0:
            return [None] * len(shape)
        raise ValueError(
            f"Axis {at} of the weight {path!r}, of shape {shape}, has the size "
            f"{shape[at]}, which does not divide by the {size} devices of the mesh's "
            f"axis 'model'. {_nearest(shape[at], size)}"
        )

    def _with_batch_axis(self, axes, path, shape):
        size = self._sizes["batch"]
        for at, axis in enumerate(axes):
            if axis is None and shape[at] % size == 0:
                return [*axes[:at], "batch", *axes[at + 1 :]]
        if is_replicated(path) or re.search(_EMBEDDING, path):
            return axes
        free = [n for n, axis in zip(shape, axes, strict=True) if axis is None]
        raise ValueError(
            f"The weight {path!r}, of shape {shape}, has no axis that can be split "
            f"over the {size} devices of the mesh's axis 'batch' with zero=True: "
            f"{free} do not divide by {size}. {_nearest(max(free), size)}"
        )


def _nearest(size, devices):
    """The nearest sizes and numbers of devices that divide, as text."""
    below, above = size // devices * devices, -(-size // devices) * devices
    sizes = sorted({below, above} - {0})
    fewer = max(n for n in range(1, devices) if size % n == 0)
    more = min((n for n in range(devices, size + 1) if size % n == 0), default=fewer)
    sizes, numbers = (
        " and ".join(map(str, found)) for found in (sizes, sorted({fewer, more}))
    )
    return (
        f"Nearest sizes that would: {sizes}. Numbers of devices that {size} divides "
        f"by: {numbers}."
    )
