"""The order in which an iteration takes its problems.

The key of a problem in the adaptive order is a pair: the last iteration that sampled
it, and its win rate there. Problems without a key have `(0, 0)`.

Reference:
    [AdaSTaR](https://arxiv.org/abs/2505.16322), algorithm 1.
"""

from collections.abc import Iterable, Mapping, Sequence

from star_keras.config import StarConfig
from star_keras.outer_loop.problems import draw_problems, draw_stream
from star_keras.storage.records import GradedSample
from star_keras.tasks.task import Problem

OrderKeys = Mapping[str, tuple[int, float]]


def ordered_problems(
    problems: Sequence[Problem], iteration: int, config: StarConfig, keys: OrderKeys
) -> Sequence[Problem]:
    """The problems of an iteration in their order.

    With the adaptive order these are its first `n_train_samples`, else those of
    `draw_problems`.

    Args:
        problems: All training problems.
        iteration: The iteration, from 1.
        config: All settings.
        keys: Keys of the adaptive order before this iteration.
    """
    order, count = config.sampling.order, config.sampling.n_train_samples
    if order != "adaptive":
        draw = draw_stream(config.run.seed, iteration, "draw")
        problems = draw_problems(problems, count, draw)
        if order == "given":
            return problems
        draw = draw_stream(config.run.seed, iteration, "order")
        return draw.sample(problems, len(problems))
    # Equal keys: in an order of the run, since that of the task is often by length.
    shuffled = draw_stream(config.run.seed, 0, "order").sample(problems, len(problems))
    return sorted(shuffled, key=lambda p: tuple(keys.get(p.id, (0, 0))))[:count]


def updated_keys(
    keys: OrderKeys,
    iteration: int,
    problems: Sequence[Problem],
    samples: Iterable[GradedSample],
    hinted: Iterable[GradedSample],
) -> dict[str, tuple[int, float]]:
    """The keys of the adaptive order after an iteration.

    The win rate of a problem is the share of its samples that are correct; if none is,
    half of that share among those with a hint. Of the m problems taken, only the first
    `round(m * alpha**2)` get a new key, where `alpha = a + (1 - a) * h` for the share a
    of problems with a correct sample, and the share h of problems with a correct
    rationalization among those sampled with a hint. The others come again first.

    Args:
        keys: The keys before the iteration.
        iteration: The iteration.
        problems: The problems that it took, in their order.
        samples: Their samples without a hint.
        hinted: Those with a hint.
    """
    plain, aided = _win_rates(samples), _win_rates(hinted)
    accuracy, hinted_accuracy = _share_won(plain), _share_won(aided)
    alpha = accuracy + (1 - accuracy) * hinted_accuracy
    count = round(len(problems) * alpha**2)
    return {**keys} | {
        problem.id: (iteration, plain[problem.id] or aided.get(problem.id, 0) / 2)
        for problem in problems[:count]
    }


def _win_rates(samples):
    """The share of correct samples of each problem."""
    counts: dict[str, list[int]] = {}
    for sample in samples:
        count = counts.setdefault(sample.problem, [0, 0])
        count[0] += sample.verdict == "correct"
        count[1] += 1
    return {problem: right / total for problem, (right, total) in counts.items()}


def _share_won(rates):
    return sum(rate > 0 for rate in rates.values()) / len(rates) if rates else 0.0
