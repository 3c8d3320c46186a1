"""The model of a plan, and the estimates of its programs."""

from absl import app


def make_model(settings, optimizer):
    """The compiled model of the flags, without values."""
    from star_keras import planning
    from star_keras.models import (
        GPTJBackbone,
        GPTJCausalLM,
        GPTJCausalLMPreprocessor,
        PackedCausalLM,
        load_causal_lm,
    )
    from star_keras.models.presets import preset_path
    from star_keras.training import compile_model

    def make():
        if settings.preset == "gpt_j_6b":
            backbone = GPTJBackbone.gpt_j_6b(dtype=settings.dtype)
            model = GPTJCausalLM(backbone, compile=False)
        else:
            model = load_causal_lm(
                settings.preset, dtype=settings.dtype, load_weights=False
            )
        if not isinstance(model, PackedCausalLM):
            raise app.UsageError(
                "Plans are for models that train and sample the fast way, see "
                f"docs/models.md. {settings.preset!r} is a {type(model).__name__}."
            )
        if model.preprocessor is None:
            # The sampler wants one, but nothing is tokenized here.
            model.preprocessor = GPTJCausalLMPreprocessor.from_preset(
                preset_path("arithmetic_base")
            )
        compile_model(model, optimizer)
        model.optimizer.build(model.trainable_variables)
        return model

    return planning.from_shapes(make)


def estimate(model, device, settings, config, zero):
    """Estimates of the programs of `settings`, by name."""
    from star_keras.planning.estimates import plan_sampling, plan_training

    found = {}
    if "train" in settings.programs:
        found["train"] = plan_training(model, device, config.training)
    if "sample" in settings.programs:
        found |= plan_sampling(
            model,
            device,
            config.sampling,
            prefix_length=settings.prefix_length,
            prompt_length=settings.prompt_length,
            zero=zero,
        )
    return found
