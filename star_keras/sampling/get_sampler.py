"""The sampler that suits a model, or one by its name."""

import importlib

from star_keras.models import GPTJCausalLM
from star_keras.sampling.batch_sampler import BatchSampler
from star_keras.sampling.continuous_sampler import ContinuousSampler
from star_keras.sampling.sampler import Sampler

_SAMPLERS = {"batch": BatchSampler, "continuous": ContinuousSampler}


def get_sampler(model, name: str = "auto", **kwargs) -> Sampler:
    """A sampler of a model.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        name: `"auto"` is `"continuous"` for GPT-J and `"batch"` for other
            models. `"package.module:name"` is a callable of your own, which
            takes the same arguments and returns a `Sampler`: an engine outside
            this process, say, that it gives the model's weights to.
        **kwargs: Arguments of the sampler, the same for all.

    Raises:
        ValueError: if there is no such sampler.
    """
    if name == "auto":
        name = "continuous" if isinstance(model, GPTJCausalLM) else "batch"
    make = _SAMPLERS.get(name)
    if make is None:
        module, _, attribute = name.partition(":")
        try:
            make = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                "Invalid value for argument `name` of the sampler. Expected "
                f'"auto", one of {sorted(_SAMPLERS)}, or "package.module:name" of '
                f"what can be imported. Received: name={name!r} ({error})."
            ) from error
    sampler = make(model, **kwargs)
    if not isinstance(sampler, Sampler):
        raise ValueError(
            "Invalid value for argument `name` of the sampler. Expected something "
            f"that returns a `star_keras.sampling.Sampler`. Received: name={name!r}, "
            f"which returned {sampler!r}."
        )
    return sampler
