import random

import pytest

from star_keras.config import SamplingConfig
from star_keras.outer_loop.mastery import draw_mastered, update_mastery
from star_keras.storage.records import GradedSample
from star_keras.storage.sample_store import SampleStore
from star_keras.testing import Doubling


def graded(verdicts):
    return [
        GradedSample(
            iteration=1,
            problem=f"double-{problem}",
            problem_class="",
            sample=i,
            kind="rationale",
            completion="",
            num_tokens=1,
            finish_reason="stop",
            answer=None,
            verdict=verdict,
        )
        for i, (problem, verdict) in enumerate(verdicts)
    ]


def test_a_wrong_sample_begins_the_count_anew():
    mastery = update_mastery({}, 1, graded([(0, "correct"), (1, "correct")]))
    assert mastery == {"double-0": (1, 1), "double-1": (1, 1)}
    later = [(0, "correct"), (0, "incorrect"), (2, "correct")]
    mastery = update_mastery(mastery, 2, graded(later))
    assert mastery == {"double-0": (0, 2), "double-1": (1, 1), "double-2": (1, 2)}


@pytest.mark.parametrize(
    ("p_mastered", "expected"), [(0.0, {"double-1": 3}), (1.0, {})]
)
def test_mastered_problems_are_those_with_enough_iterations(
    tmp_path, p_mastered, expected
):
    store = SampleStore(tmp_path)
    store.finish_pairs(3, "mastery", {"double-0": (1, 3), "double-1": (2, 3)})
    config = SamplingConfig(mastered_after=2, p_mastered=p_mastered)
    problems = Doubling(train=3).problems("train")
    found = draw_mastered(store, 4, problems, config, random.Random(0))
    assert found == expected
