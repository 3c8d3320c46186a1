"""Checks of a training: options, batch, examples, loss; weights that are finite."""

import math

import jax
import jax.numpy as jnp
import keras
import numpy as np

from star_keras.config import OptimizerConfig, TrainingConfig
from star_keras.training.packing import check_row_lengths
from star_keras.training.stored_examples import StoredExamples
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


def check_examples(name: str, examples, sequence_length: int):
    """Check examples that are trained on, or evaluated.

    Args:
        name: The argument that they come from.
        examples: `StoredExamples`.
        sequence_length: Tokens of the longest.

    Raises:
        ValueError: if they are of another type, none, too long, or all of weight 0, or
            a weight is no finite number of at least 0.
    """
    if not isinstance(examples, StoredExamples):
        remedy = "Pass `StoredExamples(tokenize_stream(model.preprocessor, texts))`."
        raise invalid(name, "`StoredExamples`", type(examples).__name__, remedy)
    if not len(examples):
        raise invalid(name, "at least one example", [])
    check_row_lengths(examples.lengths.tolist(), sequence_length, name)
    weights = examples.weights
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        rule = "a finite number of at least 0"
        raise invalid(f"{name}[{wrong[0]}].weight", rule, float(weights[wrong[0]]))
    if not weights.any():
        raise invalid(name, "at least one weight above 0", "examples of weight 0")


def check_compiled(model):
    """Check the weights, the loss, the optimizer and the steps of a model.

    Args:
        model: A compiled `keras_hub.models.CausalLM`.

    Raises:
        ValueError: if all weights are frozen;
            if the loss is not a mean over the weights of the trained tokens;
            if the optimizer has `use_ema`: at the end of a `fit`, also of one without
            any step, Keras would put its averages in place of the weights; if
            `steps_per_execution` is not 1: a callback ends the epochs.
    """
    if not model.trainable_weights:
        remedy = "Set `trainable` of some layers, then compile the model again."
        raise invalid("model", "a model with weights to train", model.name, remedy)
    reduction = getattr(model.loss, "reduction", None)
    if reduction != "mean_with_sample_weight":
        raise ValueError(
            "The model's loss must be a mean over the weights of the response "
            f"tokens, but {model.loss!r} has the reduction {reduction!r}. Compile "
            "the model with `star_keras.training.compile_model`, or with "
            "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, "
            "reduction='mean_with_sample_weight')."
        )
    if getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema:
        remedy = "Compile the model with an optimizer without it."
        raise invalid("use_ema", "False", True, remedy)
    if model.steps_per_execution != 1:
        rule = "1, since a callback ends the epochs"
        raise invalid("steps_per_execution", rule, model.steps_per_execution)


def check_learning_rate(model):
    """Check the learning rate before a step.

    Args:
        model: A compiled `keras_hub.models.CausalLM`.

    Raises:
        ValueError: if it is negative or not finite.
    """
    rate = _learning_rate(model)
    if not 0 <= rate < math.inf:
        raise invalid("learning_rate", "a finite number of at least 0", rate)


def _learning_rate(model):
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


def check_finite(model, place: str, saved: str, loss: float | None = None):
    """Check the loss and the trained weights after a step.

    Args:
        model: A compiled `keras_hub.models.CausalLM`.
        place: The step, for the error, e.g. `"step 5"`.
        saved: What is on disk, a sentence for the error.
        loss: The last loss: that of the weights before the last update.

    Raises:
        FloatingPointError: if one of them is not finite.
    """
    if loss is not None and not math.isfinite(loss):
        fault = f"the loss is {loss}"
    elif named := _non_finite_weights(model):
        fault = f"{len(named)} weights are not finite, e.g. {named[0]}"
    else:
        return
    rate = _learning_rate(model)
    raise FloatingPointError(
        f"After {place} {fault}; the learning rate is {rate}. {saved} Use a finite and "
        "lower learning rate, a global_clipnorm or a wider dtype, in a new run_dir."
    )


def _non_finite_weights(model):
    variables = model.trainable_variables
    if bool(_all_finite([v.value for v in variables])):
        return []
    return [v.path for v in variables if not bool(_all_finite([v.value]))]


@jax.jit
def _all_finite(values):
    return jnp.all(jnp.array([jnp.isfinite(value).all() for value in values]))


def checked_options(optimizer, *, head_in_loss: bool, **options) -> dict:
    """The options of `TrainingStep.compile`, checked.

    Args:
        optimizer: The optimizer.
        head_in_loss: Whether the training step computes the loss itself.
        **options: Its attributes of the same names.

    Returns:
        dict of the options, as Python values.

    Raises:
        ValueError: see `TrainingStep.compile`.
    """
    config = OptimizerConfig(**options)
    options = {name: getattr(config, name) for name in options}
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "Invalid value for argument `optimizer`. Expected an optimizer without "
            "gradient accumulation. Its own averages the means of the parts, and "
            "counts each part as a step. Received: "
            "optimizer.gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}. Pass "
            "`gradient_accumulation_steps` to `compile` instead."
        )
    for name, default in (
        ("gradient_accumulation_steps", 1),
        ("z_loss", 0.0),
        ("gradient_checkpointing", False),
        ("objective", "likelihood"),
    ):
        if options[name] != default and not head_in_loss:
            raise invalid(
                name,
                f"{default} with a loss or metrics of your own",
                options[name],
                'Leave out `metrics` and `weighted_metrics`, and pass loss="auto".',
            )
    return options
