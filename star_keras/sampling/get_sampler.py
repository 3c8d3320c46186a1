"""The sampler that suits a model."""

from star_keras.models import GPTJCausalLM
from star_keras.sampling.batch_sampler import BatchSampler
from star_keras.sampling.continuous_sampler import ContinuousSampler
from star_keras.sampling.sampler import Sampler


def get_sampler(model, **kwargs) -> Sampler:
    """A `ContinuousSampler` for GPT-J, a `BatchSampler` for other models.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        **kwargs: Arguments of the sampler, the same for both.
    """
    cls = ContinuousSampler if isinstance(model, GPTJCausalLM) else BatchSampler
    return cls(model, **kwargs)
