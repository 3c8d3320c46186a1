"""The base model of a run: every iteration starts its training from it."""

import zlib

import keras
import numpy as np

from star_keras.distribution import processes
from star_keras.training.checks import check_compiled, check_learning_rate
from star_keras.training.compile_model import lora_ranks


class BaseModel:
    """Copies of a model's weights, and of its optimizer before the first step.

    Args:
        model: A compiled `keras_hub.models.CausalLM`, not trained yet.

    Raises:
        ValueError: see `renew_optimizer`.
    """

    def __init__(self, model):
        self._model = model
        self._checksum = weights_checksum(model)
        self._weights = [processes.HostCopy(v.value) for v in model.variables]
        self._optimizer_of = None
        self.renew_optimizer()

    def renew_optimizer(self):
        """Copy the optimizer's state; no-op if it is the one copied before.

        Raises:
            ValueError: for the loss and the optimizer, see `check_compiled`; if the
                optimizer has made steps, or its learning rate is negative or not
                finite.
        """
        optimizer = self._model.optimizer
        if self._optimizer_of is optimizer:
            return
        check_compiled(self._model)
        check_learning_rate(self._model)
        if not optimizer.built:  # its slots are part of its first state
            optimizer.build(self._model.trainable_variables)
        self._optimizer_state = _fresh_values(optimizer)
        self._optimizer_config = serialized_optimizer(optimizer)
        rate = self._find_learning_rate(optimizer)
        self._first_rate = None if rate is None else float(rate.value)
        self._optimizer_of = optimizer

    def describe(self) -> dict:
        """The identity of the model in a run's configuration, as JSON.

        The optimizer has its first learning rate here. Other callbacks may have
        set another one since.
        """
        return description(self._model, self._checksum, self._optimizer_config)

    @property
    def learning_rate(self) -> keras.Variable | None:
        """The variable of a constant learning rate; `None` for a schedule."""
        return self._find_learning_rate(self._model.optimizer)

    @staticmethod
    def _find_learning_rate(optimizer):
        # The variable of a `LossScaleOptimizer` itself is not used.
        variables = getattr(optimizer, "inner_optimizer", optimizer).variables
        return next((v for v in variables if v.name == "learning_rate"), None)

    def restore(self):
        """Assign the base weights to the model."""
        for variable, value in zip(self._model.variables, self._weights, strict=True):
            variable.assign(value.to_devices())

    def restore_learning_rate(self):
        """Assign the constant learning rate of the optimizer's first state."""
        if self._first_rate is not None:
            self.learning_rate.assign(self._first_rate)

    def restart(self):
        """Assign the base weights and the optimizer's first state.

        A constant learning rate stays as it is: other callbacks may have set it.
        """
        self.restore()
        for variable, value in self._optimizer_state:
            variable.assign(keras.ops.broadcast_to(value, variable.shape))

    def training_state(self) -> list:
        """The variables that a training changes."""
        return training_state(self._model)


def weights_checksum(model) -> int:
    """CRC-32 of all weights of a model, in their order."""
    checksum = 0
    for variable in model.weights:
        value = np.ascontiguousarray(processes.gather(variable.value))
        checksum = zlib.crc32(value.view("uint8"), checksum)
    return checksum


def serialized_optimizer(optimizer) -> dict:
    """The configuration of an optimizer, as JSON."""
    config = keras.optimizers.serialize(optimizer)
    # The names hold numbers that depend on other optimizers of the program.
    for part in (config, config["config"].get("inner_optimizer")):
        if part:
            part["config"].pop("name", None)
    return config


def description(model, checksum: int, optimizer_config: dict) -> dict:
    """The identity of a model and its optimizer in a run's configuration, as JSON."""
    return {
        "base_weights_crc32": checksum,
        "lora_rank": max(lora_ranks(model), default=None),
        "frozen_weights_crc32": _frozen_checksum(model),
        "dtype": model.dtype_policy.name,
        "optimizer": optimizer_config,
        "z_loss": getattr(model, "z_loss", 0.0),
        "objective": getattr(model, "objective", "likelihood"),
        "dpo_beta": getattr(model, "dpo_beta", None),
        "nll_weight": getattr(model, "nll_weight", None),
    }


def _frozen_checksum(model):
    """CRC-32 of the places of weights that are not trained; `None` without any.

    With LoRA `None` too: its rank says what is trained.
    """
    trained = bytes(bool(v.trainable) for v in model.weights)
    return None if all(trained) or lora_ranks(model) else zlib.crc32(trained)


def training_state(model) -> list:
    """The variables of a compiled model that a training changes."""
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


def _fresh_values(optimizer):
    """The optimizer's state before its first step, without its learning rate.

    Returns:
        Pairs of a variable and its value. The value is a scalar if all elements
        of the variable are equal, as in new slots.
    """
    if int(optimizer.iterations) != 0:
        raise ValueError(
            "Every iteration starts with a fresh optimizer, but this one has "
            f"already made {int(optimizer.iterations)} steps. If this model was "
            "trained already, e.g. by an earlier run of the same notebook cell: load "
            "the base model again and compile it, and the same call goes on. If it is "
            "the base model, compile it with a new optimizer."
        )
    values = []
    for variable in optimizer.variables:
        if variable.name == "learning_rate":
            continue
        lowest = keras.ops.min(variable.value)
        constant = bool(lowest == keras.ops.max(variable.value))
        value = lowest if constant else variable.value
        values.append((variable, processes.gather(value)))
    return values
