"""Compiles a causal LM from a configuration of the optimizer."""

import keras

from star_keras.config import OptimizerConfig
from star_keras.training.learning_rates import WarmupSchedule
from star_keras.training.training_step import TrainingStep
from star_keras.utils.errors import invalid

# Settings of models with the training step of this package.
_OWN_STEP = (
    *("gradient_accumulation_steps", "z_loss", "gradient_checkpointing"),
    *("objective", "dpo_beta", "nll_weight"),
)


# Projections to queries and values in families where they are named otherwise.
_LORA_LAYERS = ("q_proj", "v_proj", "query_key_value")


def compile_model(model, config: OptimizerConfig | None = None):
    """Compile a causal LM for the outer loop, with the paper's Adam by default.

    With `lora_rank` only the low-rank adapters of the attention stay trainable. A model
    that has adapters of this rank keeps them.

    Args:
        model: A `keras_hub.models.CausalLM`. Changed in place.
        config: optional `OptimizerConfig`: optimizer and training step. Defaults to
            `OptimizerConfig()`.

    Raises:
        ValueError: if `gradient_accumulation_steps`, `z_loss`,
            `gradient_checkpointing` or `objective` is set for a model without
            `TrainingStep`, or `lora_rank` for one whose attention takes no adapters,
            or if it is not that of the adapters that the model has.

    Example:
    ```python
    compile_model(model, OptimizerConfig(learning_rate=1e-5, warmup_steps=10))
    ```
    """
    config = config or OptimizerConfig()
    own_step = isinstance(model, TrainingStep)
    for name in _OWN_STEP:
        if not own_step and getattr(config, name) != getattr(OptimizerConfig, name):
            raise invalid(
                name,
                f"{getattr(OptimizerConfig, name)!r} for a {type(model).__name__}",
                getattr(config, name),
                "It needs the training step of "
                "`star_keras.models.packed_causal_lm(model)`.",
            )
    ranks = lora_ranks(model)
    if ranks and ranks != {config.lora_rank}:
        rule = f"{sorted(ranks)[0]}, the rank of the adapters that the model has"
        remedy = "Set it, or load the model again."
        raise invalid("lora_rank", rule, config.lora_rank, remedy)
    if config.lora_rank is not None:
        if not ranks:
            _enable_lora(model.backbone, config.lora_rank)
        for layer in model.layers:
            if layer is not model.backbone:  # such as an untied head
                layer.trainable = False
    if own_step:
        arguments = {name: getattr(config, name) for name in _OWN_STEP}
    else:
        arguments = {
            "loss": keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        }
    model.compile(optimizer=_optimizer(config), weighted_metrics=[], **arguments)


def lora_ranks(model) -> set[int]:
    """The ranks of the adapters of a `keras_hub.models.CausalLM`; none without any."""
    layers = model.backbone._flatten_layers()
    return {x.lora_rank for x in layers if getattr(x, "lora_enabled", False)}


def _enable_lora(backbone, rank):
    names = {*backbone.default_lora_layer_names(), *_LORA_LAYERS}
    backbone.enable_lora(rank, target_layer_names=sorted(names))
    if not any("lora" in v.path for v in backbone.trainable_variables):
        raise invalid(
            "lora_rank",
            f"`None` for a {type(backbone).__name__}, whose attention has no layer of "
            f"the names {sorted(names)}",
            rank,
        )


def _optimizer(config):
    learning_rate = config.learning_rate
    # A number where it is one: callbacks can set it.
    if config.warmup_steps or config.lr_schedule != "constant":
        learning_rate = WarmupSchedule(
            config.learning_rate,
            config.warmup_steps,
            decay=config.lr_schedule,
            decay_steps=config.decay_steps,
            hold_steps=config.hold_steps,
        )
    return keras.optimizers.Adam(
        learning_rate,
        beta_2=config.beta_2,
        global_clipnorm=config.clipnorm,
        name="star_adam",
    )
