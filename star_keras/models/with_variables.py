"""A scope with other values of a model's variables."""

import keras


def with_variables(model, variables):
    """A scope in which a model computes with other values of its variables.

    Args:
        model: A built Keras model.
        variables: One array for each of `model.variables`. LoRA adapters may be of
            another rank.

    Returns:
        A `keras.StatelessScope`.
    """
    scope = keras.StatelessScope()
    for variable, value in zip(model.variables, variables, strict=True):
        value = keras.ops.convert_to_tensor(value, dtype=variable.dtype)
        scope.add_update((variable, value))
    return scope
