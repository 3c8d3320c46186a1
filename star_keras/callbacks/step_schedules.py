"""How many steps each iteration of the outer loop trains.

A schedule is any callable `(iteration, steps_per_pass) -> steps`.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class ExponentialSteps:
    """`start * growth ** (iteration - 1)` steps, the paper's schedule.

    Reference:
        [STaR](https://arxiv.org/abs/2203.14465), appendix: 40 steps, 20% more
        each iteration.
    """

    start: int = 40
    growth: float = 1.2

    def __call__(self, iteration, steps_per_pass):
        return max(1, int(self.start * self.growth ** (iteration - 1)))


@dataclasses.dataclass(frozen=True)
class SteadySteps:
    """`start + add * (iteration - 1)` steps."""

    start: int = 40
    add: int = 20

    def __call__(self, iteration, steps_per_pass):
        return max(1, self.start + self.add * (iteration - 1))


@dataclasses.dataclass(frozen=True)
class EpochSteps:
    """`base_epochs + add_epochs * (iteration - 1)` passes over what was kept."""

    base_epochs: float = 1.0
    add_epochs: float = 0.2

    def __call__(self, iteration, steps_per_pass):
        passes = self.base_epochs + self.add_epochs * (iteration - 1)
        return max(1, math.ceil(passes * steps_per_pass))
