"""The sampler that suits a model, or one by its name."""

import inspect
import json

from star_keras.config import SAMPLER_SETTINGS, SamplingConfig, StarConfig
from star_keras.models.families import family_of
from star_keras.sampling.batch_sampler import BatchSampler
from star_keras.sampling.continuous_sampler import ContinuousSampler
from star_keras.sampling.sampler import Sampler
from star_keras.utils.errors import invalid
from star_keras.utils.imports import import_callable

_SAMPLERS = {"batch": BatchSampler, "continuous": ContinuousSampler}


def get_sampler(model, name: str = "auto", **kwargs) -> Sampler:
    """A sampler of a model.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        name: `"auto"` is `"continuous"` for models of a known family, see
            `star_keras.models.families`, and `"batch"` for others.
            `"package.module:name"` is a callable of your own that takes the same
            arguments and returns a `Sampler`, for example an engine outside this
            process that is given the model's weights.
        **kwargs: Arguments of the sampler, the same for all, see
            `ModelSampler`.

    Raises:
        ValueError: if there is no such sampler, its arguments are invalid, or
            `name` returns something else than a `Sampler`.

    Example:
    ```python
    sampler = get_sampler(model, max_new_tokens=16, temperature=0.7)
    ```
    """
    if name == "auto":
        name = "batch" if family_of(model) is None else "continuous"
    if name in _SAMPLERS:
        return _SAMPLERS[name](model, **kwargs)
    rule = (
        f'"auto", one of {sorted(_SAMPLERS)}, or "package.module:name" of a callable '
        "that can be imported"
    )
    make = import_callable("name", name, rule)
    try:
        inspect.signature(make).bind(model, **kwargs)
    except (TypeError, ValueError) as error:  # the latter for one without a signature
        raise invalid(
            "name",
            f"the name of a callable that takes a model and {sorted(kwargs)}",
            name,
            f"Its arguments are others: {error}.",
        ) from error
    sampler = make(model, **kwargs)
    if not isinstance(sampler, Sampler):
        raise invalid(
            "name",
            "the name of a callable that returns a `star_keras.sampling.Sampler`",
            name,
            f"It returned {sampler!r}.",
        )
    return sampler


def configured_sampler(
    model, config: SamplingConfig, *, seed: int = 0, greedy: bool = False
) -> Sampler:
    """The sampler that a configuration describes.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        config: Its `sampler`, sizes and temperature are used.
        seed: Seed of the samples.
        greedy: Whether to leave out the temperature, `top_k`, `top_p` and `min_p`.

    Raises:
        ValueError: see `get_sampler`.
    """
    choices = {}
    if not greedy:
        choices = {
            "temperature": config.temperature,
            "top_k": config.top_k,
            "top_p": config.top_p,
            "min_p": config.min_p,
        }
    return get_sampler(
        model,
        config.sampler,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.sample_batch_size,
        seed=seed,
        **choices,
    )


def training_and_eval_sampler(
    model,
    config: StarConfig,
    sampler: Sampler | None = None,
    eval_sampler: Sampler | None = None,
) -> tuple[Sampler, Sampler]:
    """The samplers of a run.

    Args:
        model: A `keras_hub.models.CausalLM` with a preprocessor.
        config: All settings.
        sampler: Sampler of training problems. Defaults to the configured one.
        eval_sampler: Sampler of held-out problems. Defaults to `sampler` if that
            is given, else to the configured one without temperature.

    Returns:
        The sampler of training problems and that of held-out problems.

    Raises:
        ValueError: if `config` is no `StarConfig`, a sampler is no `Sampler`, is of
            another model or has a `get_config` that is no JSON, a sampler is passed and
            configured, or several samples a problem are asked of a greedy sampler.
    """
    if not isinstance(config, StarConfig):
        raise invalid("config", "a `star_keras.config.StarConfig`", config)
    for name, own in (("sampler", sampler), ("eval_sampler", eval_sampler)):
        if own is not None and not isinstance(own, Sampler):
            raise invalid(name, "`None` or a `star_keras.sampling.Sampler`", own)
        if getattr(own, "model", model) is not model:
            raise invalid(name, "a sampler of the model that is trained", own)
    if sampler is not None:
        for name in SAMPLER_SETTINGS:
            default = getattr(SamplingConfig, name)
            if getattr(config.sampling, name) != default:
                raise invalid(
                    name,
                    f"{default!r}, its default, beside a `sampler` of your own",
                    getattr(config.sampling, name),
                    "Configure that sampler itself, or leave it out.",
                )
        eval_sampler = eval_sampler or sampler
    else:
        sampling, seed = config.sampling, config.run.seed
        sampler = configured_sampler(model, sampling, seed=seed)
        if eval_sampler is None:
            # One sampler for both where it can be: it compiles once.
            eval_sampler = sampler
            if sampling.temperature:
                eval_sampler = configured_sampler(
                    model, sampling, seed=seed, greedy=True
                )
    _checked_config("eval_sampler", eval_sampler)
    is_greedy = _checked_config("sampler", sampler).get("temperature") == 0
    for name, one in (("samples_per_problem", 1), ("kept_per_problem", None)):
        count = getattr(config.sampling, name)
        if is_greedy and count != one:
            raise invalid(
                name,
                f"`{one}` with a greedy sampler, whose samples of a problem are all "
                "the same",
                count,
                "Set a temperature above 0.",
            )
    return sampler, eval_sampler


def _checked_config(name, sampler):
    """`get_config` of a sampler, perhaps of the user's own."""
    config, fault = sampler.get_config(), "no dict"
    try:
        json.dumps(config)
    except (TypeError, ValueError) as error:
        fault = str(error)
    else:
        if isinstance(config, dict):
            return config
    rule = f"a dict that JSON can hold from `{name}` {sampler!r} ({fault})"
    raise invalid("get_config", rule, config, "Leave other values out.")
