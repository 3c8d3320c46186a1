"""Checks of a training: that its batch fits, and that its weights are numbers."""

import jax
import jax.numpy as jnp

from star_keras.config import TrainingConfig
from star_keras.utils import memory
from star_keras.utils.errors import invalid


def check_batch(model, config: TrainingConfig):
    """Check the batch size.

    Args:
        model: A compiled `keras_hub.models.CausalLM`.
        config: Has `batch_size` and `sequence_length`.

    Raises:
        ValueError: if a batch is larger than the memory, or the model accumulates
            gradients over a number of parts that does not divide it.
    """
    # Six arrays of 32-bit numbers.
    memory.check_fits(
        "batch_size", config.batch_size, 24 * config.sequence_length, "a row"
    )
    parts = getattr(model, "gradient_accumulation_steps", 1)
    if config.batch_size % parts:
        rule = f"a multiple of gradient_accumulation_steps={parts}"
        raise invalid("batch_size", rule, config.batch_size)


def non_finite_weights(model) -> list[str]:
    """Paths of the trained weights of a model that are not finite."""
    variables = model.trainable_variables
    if bool(_all_finite([v.value for v in variables])):
        return []
    return [v.path for v in variables if not bool(_all_finite([v.value]))]


@jax.jit
def _all_finite(values):
    return jnp.all(jnp.array([jnp.isfinite(value).all() for value in values]))
