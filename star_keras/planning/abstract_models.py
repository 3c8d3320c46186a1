"""Models and training steps of any size, made of shapes without values."""

import math

import jax
import keras

from star_keras.distribution import variable_shapes
from star_keras.models import PackedCausalLM


def from_shapes(make):
    """Call a function with shapes in place of all arrays.

    Args:
        make: Callable without arguments, e.g. one that makes a model.

    Returns:
        The result of `make()`. Its Keras variables have shapes and no values, and
        take no memory.

    Example:
    ```python
    model = from_shapes(lambda: GPTJCausalLM(GPTJBackbone.gpt_j_6b(), compile=False))
    model.count_params()  # 6_050_882_784
    ```
    """
    made = []

    def trace():
        made.append(make())

    jax.eval_shape(trace)
    return made[0]


def lower_train_step(model, batch_size, length):
    """Lower the training step of `fit` under the current `keras.distribution`.

    Args:
        model: A compiled KerasHub causal LM with a built optimizer, with values or
            without, see `from_shapes`.
        batch_size: int. Rows of a step on all devices.
        length: int. Tokens of a row.

    Returns:
        A `jax.stages.Lowered`. Its arguments are the `state` and `data` of
        `train_step`.

    Raises:
        ValueError: if `batch_size` does not divide by the devices of the mesh's
            axes of rows.
    """
    state = tuple(
        variable_shapes(variables)
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    distribution = keras.distribution.distribution()
    rows = distribution.get_data_layout((batch_size, length)).backend_layout

    def array(dtype):
        return jax.ShapeDtypeStruct((batch_size, length), dtype, sharding=rows)

    names = [tensor.name for tensor in model.inputs]
    if isinstance(model, PackedCausalLM):
        names += ["segment_ids", "positions"]
    inputs = {name: array("int32") for name in names}
    if getattr(model, "objective", None) == "rpo":
        inputs["reference"] = array("float32")
    data = inputs, array("int32"), array("float32")
    # As Keras compiles it, see `JAXTrainer.make_train_function`.
    step = jax.jit(
        model.train_step,
        donate_argnums=0,
        out_shardings=(None, jax.tree.map(lambda leaf: leaf.sharding, state)),
    )
    return step.lower(state, data)


def device_bytes(shapes):
    """Bytes of arrays on one device.

    Args:
        shapes: A tree of `jax.ShapeDtypeStruct`, sharded or not.

    Returns:
        int. For sharded arrays the bytes of one shard.
    """

    def size(leaf):
        shape = leaf.shape
        if leaf.sharding is not None:
            shape = leaf.sharding.shard_shape(shape)
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(shapes)))
