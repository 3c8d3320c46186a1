"""Weights as they are stored in a file, and a model made with them."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import keras
import numpy as np
from jax import numpy as jnp
from keras.src.backend.common import global_state


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredWeight:
    """One tensor of a file, and the variables of a model that it holds.

    Attributes:
        variables: Tuple of Keras variables.
        shape: Shape of the tensor in the file.
        split: Callable from the tensor to a list of arrays, one a variable, in its
            shape.
        join: The inverse of `split`.
        row: optional int. The tensor is this row of the first axis of its variable.
            All rows must be stored. Defaults to `None`, the whole variable.
    """

    variables: tuple
    shape: tuple
    split: Callable
    join: Callable
    row: int | None = None

    def read(self):
        """The tensor, a numpy array in the dtype of the variables."""
        values = [keras.ops.convert_to_tensor(v) for v in self.variables]
        if self.row is not None:
            values = [value[self.row] for value in values]
        return self.join([np.asarray(value) for value in values])


def same(variable):
    """A tensor of the variable's own shape."""
    return reshaped(variable, tuple(variable.shape))


def reshaped(variable, shape):
    """A tensor that holds the variable's elements in the same order."""
    return StoredWeight(
        variables=(variable,),
        shape=tuple(shape),
        split=lambda tensor: [np.reshape(tensor, variable.shape)],
        join=lambda arrays: np.reshape(arrays[0], shape),
    )


def transposed(variable, input_axes=1):
    """A matrix `(outputs, inputs)`.

    The first `input_axes` axes of the variable are its inputs.
    """
    inputs = math.prod(variable.shape[:input_axes])
    outputs = math.prod(variable.shape[input_axes:])
    return StoredWeight(
        variables=(variable,),
        shape=(outputs, inputs),
        split=lambda tensor: [np.reshape(np.transpose(tensor), variable.shape)],
        join=lambda arrays: np.transpose(np.reshape(arrays[0], (inputs, outputs))),
    )


def transposed_row(variable, row):
    """A matrix `(outputs, inputs)`: a row of a variable `(rows, inputs, outputs)`."""
    _, inputs, outputs = variable.shape
    return StoredWeight(
        variables=(variable,),
        shape=(outputs, inputs),
        split=lambda tensor: [np.transpose(tensor)],
        join=lambda arrays: np.transpose(arrays[0]),
        row=row,
    )


def heads_first(variable):
    """A matrix `(outputs, inputs)` of a variable `(heads, inputs, head_dim)`.

    Its outputs are the heads, one after the other.
    """
    heads, inputs, head_dim = variable.shape
    return StoredWeight(
        variables=(variable,),
        shape=(heads * head_dim, inputs),
        split=lambda tensor: [
            np.transpose(np.reshape(tensor, (heads, head_dim, inputs)), (0, 2, 1))
        ],
        join=lambda arrays: np.reshape(
            np.transpose(arrays[0], (0, 2, 1)), (heads * head_dim, inputs)
        ),
    )


def side_by_side(variables, rows):
    """A tensor whose last axis holds that of each variable in turn.

    `rows` is the shape of the axes before it: `(inputs,)` of matrices, `()` of vectors.
    """
    widths = [math.prod(v.shape) // math.prod(rows) for v in variables]
    ends = np.cumsum(widths)

    def split(tensor):
        parts = np.split(tensor, ends[:-1], axis=-1)
        return [
            np.reshape(part, variable.shape)
            for part, variable in zip(parts, variables, strict=True)
        ]

    def join(arrays):
        parts = [
            np.reshape(array, (*rows, width))
            for array, width in zip(arrays, widths, strict=True)
        ]
        return np.concatenate(parts, axis=-1)

    return StoredWeight(
        variables=tuple(variables),
        shape=(*rows, int(ends[-1])),
        split=split,
        join=join,
    )


def stacked(weights):
    """A matrix whose rows are those of each of `weights` in turn."""
    rows = [weight.shape[0] for weight in weights]
    ends = np.cumsum(rows)

    def split(tensor):
        parts = np.split(tensor, ends[:-1])
        return [
            part
            for weight, piece in zip(weights, parts, strict=True)
            for part in weight.split(piece)
        ]

    return StoredWeight(
        variables=tuple(v for weight in weights for v in weight.variables),
        shape=(int(ends[-1]), *weights[0].shape[1:]),
        split=split,
        join=lambda arrays: np.concatenate(
            [
                weight.join([array])
                for weight, array in zip(weights, arrays, strict=True)
            ]
        ),
    )


def make_with_weights(make_model, table, read, on_weight=None):
    """Make a model and set its weights, one tensor at a time, the largest first.

    The random initial weights are never made. Memory holds the model and at most
    one more tensor.

    Args:
        make_model: Callable without arguments that returns a causal LM, not
            compiled.
        table: Callable from the model to a dict from a name to a `StoredWeight`.
        read: Callable from such a name to a float array. The weight takes the dtype
            of its variable and the layout of the current `keras.distribution`.
        on_weight: optional callable without arguments, called after each tensor.

    Returns:
        The model, compiled with the defaults of its class.

    Raises:
        ValueError: if an array has another shape. The error names the weight.
    """
    with keras.StatelessScope(initialize_variables=False):
        model = make_model()
    # Keras would initialize these variables at the next scope.
    pending = global_state.get_global_attribute("uninitialized_variables")
    global_state.set_global_attribute("uninitialized_variables", [])
    weights = table(model)
    read_later = {id(v) for stored in weights.values() for v in stored.variables}
    for variable in pending:  # such as the state of a dropout
        if id(variable) not in read_later:
            variable._deferred_initialize()
    for name in sorted(weights, key=lambda name: -math.prod(weights[name].shape)):
        stored = weights[name]
        tensor = read(name)
        if tuple(tensor.shape) != stored.shape:
            raise ValueError(
                f"The weight {name!r} has another shape than the configuration says. "
                f"Expected {stored.shape}. Received: {tuple(tensor.shape)}."
            )
        parts = stored.split(tensor)
        del tensor
        for variable, value in zip(stored.variables, parts, strict=True):
            # numpy casts it: on the device there would be a second copy.
            value = np.array(value, jnp.dtype(variable.dtype), order="C")
            value = keras.ops.convert_to_tensor(value, variable.dtype)
            if stored.row is None:
                variable._initialize(value)
                continue
            if variable._value is None:
                variable._initialize_with_initializer(keras.initializers.Zeros())
            variable.assign(_set_row(variable.value, value, stored.row))
        del parts, value
        if on_weight:
            on_weight()
    model.compile()
    return model


@functools.partial(jax.jit, donate_argnums=0)  # no second copy of the variable
def _set_row(values, value, row):
    return values.at[row].set(value)
