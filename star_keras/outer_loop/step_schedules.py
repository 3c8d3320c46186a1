"""The number of training steps of each iteration of the outer loop."""

import inspect
import math
import numbers

from star_keras.config import TrainingConfig
from star_keras.utils.errors import invalid
from star_keras.utils.exact import exact


def scheduled_steps(config: TrainingConfig, iteration: int, steps_per_pass: int) -> int:
    """The number of training steps of an iteration, exact, at least 1.

    Args:
        config: Its `schedule` is one of
            `"exponential"`: `start_steps * growth ** (iteration - 1)` steps, rounded
            down,
            `"steady"`: `start_steps + add_steps * (iteration - 1)` steps,
            `"epochs"`: `base_epochs + add_epochs * (iteration - 1)` passes, rounded up
            to whole steps.
        iteration: The iteration, from 1.
        steps_per_pass: Steps of one pass over the training set.

    Reference:
        [STaR](https://arxiv.org/abs/2203.14465), appendix: 40 steps, 20% more
        each iteration.

    Example:
    ```python
    config = TrainingConfig(schedule="exponential", start_steps=40, growth=1.2)
    [scheduled_steps(config, n, 7) for n in (1, 2, 3)]  # [40, 48, 57]
    ```
    """
    later = iteration - 1
    if config.schedule == "exponential":
        steps = int(config.start_steps * exact(config.growth) ** later)
    elif config.schedule == "steady":
        steps = config.start_steps + config.add_steps * later
    else:
        passes = exact(config.base_epochs) + exact(config.add_epochs) * later
        steps = math.ceil(passes * steps_per_pass)
    return max(1, steps)


def check_schedule(steps):
    """Check that a schedule of the user's own can be called.

    Args:
        steps: See `checked_steps`.

    Raises:
        ValueError: if it is not callable, or does not take two numbers.
    """
    rule = "`None` or a callable `(iteration, steps_per_pass)`"
    if not callable(steps):
        raise invalid("steps", rule, steps)
    try:
        signature = inspect.signature(steps)
    except (TypeError, ValueError):
        return  # some built-in functions have none
    try:
        signature.bind(1, 1)
    except TypeError as error:
        raise invalid("steps", f"{rule} ({error})", steps) from None


def checked_steps(steps, iteration: int, steps_per_pass: int) -> int:
    """What a schedule of the user's own returns.

    Args:
        steps: Callable `(iteration, steps_per_pass) -> int`.
        iteration: The iteration, from 1.
        steps_per_pass: Steps of one pass over the training set.

    Raises:
        ValueError: if it does not return an integer of at least 1.
    """
    number = steps(iteration, steps_per_pass)
    if not isinstance(number, numbers.Integral) or number < 1:
        raise ValueError(
            "Invalid value for argument `steps`. Expected a callable `(iteration, "
            "steps_per_pass)` that returns an integer of at least 1. Received: "
            f"{number!r} for iteration {iteration}."
        )
    return int(number)
