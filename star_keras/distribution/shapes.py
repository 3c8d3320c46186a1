"""Shapes and shardings of variables, without their values."""

import jax
import keras


def variable_shapes(variables, distribution=None):
    """Shapes, dtypes and shardings of variables.

    Args:
        variables: Keras variables, with values or without.
        distribution: optional `keras.distribution` object that gives the
            shardings. Defaults to the current one. Without any there are none.

    Returns:
        A list of `jax.ShapeDtypeStruct`.
    """
    distribution = distribution or keras.distribution.distribution()

    def shape(variable):
        sharding = None
        if distribution is not None:
            sharding = distribution.get_variable_layout(variable).backend_layout
        return jax.ShapeDtypeStruct(variable.shape, variable.dtype, sharding=sharding)

    return [shape(variable) for variable in variables]
