"""The part of `fit` that is the same in all callbacks with a `fit` of their own."""

import keras

from star_keras.utils.errors import invalid

# Value of `model.stop_training` where a callback ends an epoch, not the fit.
_END_OF_EPOCH = object()


def further_callbacks(own, callbacks) -> list:
    """The callbacks that a user gives to `fit`, as a list.

    Args:
        own: The callback whose `fit` it is.
        callbacks: Callbacks besides this one, one of them, or `None`.

    Raises:
        ValueError: if one of them is no callback, or is of the class of `own`.
    """
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    callbacks = list(callbacks or ())
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            rule = "objects of `keras.callbacks.Callback`"
            raise invalid("callbacks", rule, callback)
        if isinstance(callback, type(own)):
            rule = f"callbacks besides this one, and no other {type(own).__name__}"
            raise invalid("callbacks", rule, callbacks, "Leave it out.")
    return callbacks


def end_epoch(model):
    """End the epoch of a model after this step."""
    model.stop_training = model.stop_training or _END_OF_EPOCH


def go_on(model):
    """Go on after `end_epoch`, unless another callback ends the fit."""
    if model.stop_training is _END_OF_EPOCH:
        model.stop_training = False
