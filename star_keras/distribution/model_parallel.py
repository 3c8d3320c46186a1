"""Causal LMs over a mesh: weights split, every split checked."""

import math
import re

import jax
import keras
from keras.src.backend.common import global_state

from star_keras.distribution.layouts import causal_lm_layout_map, is_replicated
from star_keras.distribution.mesh import parse_mesh

# Paths of layer outputs of the shape (batch, length, hidden_dim).
_HIDDEN_STATES = r"(.*/)?(token_embedding|(transformer_layer|decoder_block)_\d+)/output"
_EMBEDDING = "token_embedding[/_]embeddings"


def model_parallel(mesh: str, *, zero=False, devices=None) -> "CausalLMParallel":
    """Distribution of a causal LM over a mesh of devices.

    `"batch:2,model:4"` splits rows over `batch` and weights over `model`;
    `"batch:8"` is data parallelism.

    Args:
        mesh: Sizes of the axes.
        zero: Whether weights, gradients and the optimizer's moments are split
            over `batch` as well, see `CausalLMParallel`.
        devices: Devices or their names, in the mesh's order, `batch` the
            slower. Defaults to all.

    Returns:
        A `keras.distribution.ModelParallel` for
        `keras.distribution.set_distribution`, before the model is made.

    Raises:
        ValueError: if the mesh is malformed, or of another size than the
            number of devices.

    Example:
    ```python
    keras.distribution.set_distribution(model_parallel("batch:2,model:4"))
    model = load_causal_lm("llama3_8b_en")
    ```
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
    return CausalLMParallel(device_mesh, zero=zero)


class CausalLMParallel(keras.distribution.ModelParallel):
    """Splits a causal LM's weights over `model`, and its rows over `batch`.

    Heads, the MLP's width and the vocabulary go over `model`, see
    `causal_lm_layout_map`. Two weights of KerasHub's models may not divide and
    are laid out otherwise: key-value heads that are fewer than the devices of
    `model` are replicated, if their number divides that of the devices; and
    an embedding whose vocabulary does not divide (GPT-2's 50,257) is split by
    its width, and then not by `zero`.

    With `zero` the first axis that is free, and that the devices of `batch`
    divide, is split over them, in every weight of two axes or more. Optimizer
    slots have the layout of their weight, and the update makes it that of the
    gradient. Each device then holds `1 / devices` of the weights and moments,
    and every use of a weight gathers it.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh` with the axes `batch`
            and `model`.
        zero: bool. Defaults to `False`.

    Raises:
        ValueError: when a variable is made whose size does not divide, or
            `fit`, `check_layouts` or a sampler finds weights that no layout
            is known for.

    Reference:
        [ZeRO](https://arxiv.org/abs/1910.02054), stage 3.
    """

    def __init__(self, device_mesh, *, zero=False):
        super().__init__(
            layout_map=causal_lm_layout_map(device_mesh), batch_dim_name="batch"
        )
        self.zero = zero
        self._sizes = dict(zip(device_mesh.axis_names, device_mesh.shape, strict=True))
        self._unknown = {}

    def get_variable_layout(self, variable):
        # What Keras was told for this very variable.
        if getattr(variable, "_layout", None) is not None:
            return variable._layout
        path, shape = variable.path, tuple(variable.shape)
        axes = self._model_axes(path, shape)
        if self.zero and len(shape) > 1:
            axes = self._with_batch_axis(axes, path, shape)
        return keras.distribution.TensorLayout(axes, self.device_mesh)

    def get_tensor_layout(self, path):
        # Without this XLA splits hidden states by their width, like the weights
        # that `zero` splits, and computes all rows on every device.
        context = global_state.get_global_attribute("current_call_ctx")
        if self.zero and context and context.training:
            if re.fullmatch(_HIDDEN_STATES, path):
                return keras.distribution.TensorLayout(
                    ["batch", None, None], self.device_mesh
                )
        return super().get_tensor_layout(path)

    def get_data_layout(self, data_shape):
        self.check_layouts()
        # A process has its own rows only.
        size = max(self._sizes["batch"] // self.num_processes, 1)
        if data_shape[0] % size:
            raise ValueError(
                f"A batch of {data_shape[0]} rows does not divide by the {size} "
                f"devices of the mesh's axis 'batch'. {_nearest(data_shape[0], size)}"
            )
        return super().get_data_layout(data_shape)

    def check_layouts(self):
        """Raise if a model was made that has weights without a known layout.

        Raises:
            ValueError: naming all weights that lie whole on every device.
        """
        if self._unknown:
            listed = "\n".join(f"  {path} {s}" for path, s in self._unknown.items())
            raise ValueError(
                f"These weights would be replicated on all {self._sizes['model']} "
                f"devices of the mesh's axis 'model':\n{listed}\n"
                "Layouts are known for GPT-J and for KerasHub's GPT-2, Llama, "
                "Mistral, Gemma and Qwen. Use a mesh without `model`, or a "
                "`keras.distribution.ModelParallel` with a layout map of your own."
            )

    def without_zero(self, values, variables):
        """Values in the layout of `zero=False`, for many uses in a row.

        Args:
            values: Arrays, the values of `variables`.
            variables: `keras.Variable`s of this distribution.

        Returns:
            `values`, gathered over `batch`; as they are without `zero`, or
            where the gathered ones would take more than half of a device's
            memory.
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
        # The same on every process: it does not ask what is in use.
        memory = self.device_mesh.backend_mesh.local_devices[0].memory_stats()
        if memory and needed > memory["bytes_limit"] // 2:
            return values
        return jax.jit(lambda x: x, out_shardings=shardings)(values)

    def _model_axes(self, path, shape):
        """Axes of a variable without `zero`."""
        layout = self._layout_map[path]
        size = self._sizes["model"]
        # Some optimizers have slots of other shapes.
        if layout is None or len(layout.axes) != len(shape):
            if layout is None and size > 1 and len(shape) > 1:
                if not is_replicated(path):
                    self._unknown[path] = shape
            return [None] * len(shape)
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
    """What would divide, said for a message."""
    below, above = size // devices * devices, -(-size // devices) * devices
    sizes = sorted({below, above} - {0})
    fewer = max(n for n in range(1, devices) if size % n == 0)
    more = min((n for n in range(devices, size + 1) if size % n == 0), default=fewer)
    return (
        f"Nearest sizes that would: {' and '.join(map(str, sizes))}. Numbers of "
        f"devices that {size} divides by: {' and '.join(map(str, sorted({fewer, more})))}."
    )
