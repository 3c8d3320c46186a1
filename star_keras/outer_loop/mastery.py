"""Which problems a model has mastered, kept from iteration to iteration.

The mastery of a problem is a pair. The first number counts the last consecutive
iterations that sampled the problem and produced only correct unhinted
rationales. The second is the last iteration that sampled it.
"""

import random
from collections.abc import Iterable, Mapping, Sequence

from star_keras.config import SamplingConfig
from star_keras.storage.records import GradedSample
from star_keras.storage.sample_store import SampleStore
from star_keras.storage.stored_samples import KeptSamples
from star_keras.tasks.task import Problem

Mastery = Mapping[str, tuple[int, int]]


def update_mastery(
    mastery: Mastery, iteration: int, samples: Iterable[GradedSample]
) -> dict[str, tuple[int, int]]:
    """The mastery of all problems after an iteration.

    Args:
        mastery: The mastery before it, by the id of the problem.
        iteration: The iteration.
        samples: Its unhinted samples.
    """
    correct: dict[str, bool] = {}
    for sample in samples:
        is_correct = sample.verdict == "correct"
        correct[sample.problem] = correct.get(sample.problem, True) and is_correct
    streaks = {
        problem: (mastery.get(problem, (0, 0))[0] + 1 if right else 0, iteration)
        for problem, right in correct.items()
    }
    return {**mastery, **streaks}


def draw_mastered(
    store: SampleStore,
    iteration: int,
    problems: Sequence[Problem],
    config: SamplingConfig,
    draw: random.Random,
) -> dict[str, int]:
    """The mastered problems that an iteration does not sample.

    Args:
        store: Holds the mastery after the iteration before.
        iteration: The iteration.
        problems: The problems drawn for it.
        config: Its `mastered_after` and `p_mastered` decide.
        draw: Stream of random numbers; gives one to each problem.

    Returns:
        The last iteration that sampled each of them, by the id of the problem.

    Raises:
        ValueError: if the file of the mastery is missing.
    """
    if not config.mastered_after:
        return {}
    mastery = store.load_pairs(iteration - 1, "mastery")
    found = {}
    for problem in problems:
        streak, last = mastery.get(problem.id, (0, 0))
        if draw.random() >= config.p_mastered and streak >= config.mastered_after:
            found[problem.id] = last
    return found


def load_mastered(store: SampleStore, mastered: Mapping[str, int]) -> KeptSamples:
    """The unhinted rationales that stand for mastered problems.

    Args:
        store: Holds the iterations that sampled them.
        mastered: See `draw_mastered`.

    Raises:
        ValueError: if a file is missing or does not fit the others.
    """
    kept = map(store.load_kept, sorted(set(mastered.values())))
    return sum(kept, KeptSamples()).where(
        lambda selection: (
            selection.kind != "rationalization"
            and mastered.get(selection.problem) == selection.iteration
        )
    )
