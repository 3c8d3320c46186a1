import math
import tracemalloc

import pytest

from star_keras.config import SelectionConfig
from star_keras.outer_loop.collapse import collapse_metrics
from star_keras.outer_loop.selection import select
from star_keras.storage.sample_store import SampleStore
from star_keras.storage.stored_samples import KeptSamples
from star_keras.testing import Doubling
from tests.storage.conftest import make_sample

TASK = Doubling(train=2000)
PROBLEMS = {problem.id: problem for problem in TASK.problems("train")}


def sample(iteration, n, text, kind="rationale", **kwargs):
    return make_sample(
        iteration,
        kind,
        f"double-{n}",
        **{"completion": text, "answer": str(2 * n), "verdict": "correct", **kwargs},
    )


@pytest.fixture
def finish(tmp_path):
    """Finishes an iteration of samples; returns its metrics."""
    store = SampleStore(tmp_path)

    def finish(iteration, samples, hinted=()):
        phases = []
        for kind, found in (("rationale", samples), ("rationalization", hinted)):
            store.finish(iteration, kind, found)
            phases.append(store.load(iteration, kind))
        selections = select(TASK, phases, SelectionConfig(), seed=0)
        store.finish_selection(iteration, selections)
        own = KeptSamples.of(phases, selections)
        return collapse_metrics(store, TASK, PROBLEMS, own, phases[1], iteration)

    return finish


def test_a_rationale_of_the_iteration_before_is_repeated_for_its_problem_alone(finish):
    wrong = {"answer": "7", "verdict": "incorrect"}
    first = finish(
        1,
        [
            sample(1, 1, " 1 + 1 = 2. The answer is 2.", num_tokens=10),
            sample(1, 2, " 2 + 2 = 4. The answer is 4.", num_tokens=13),
            sample(1, 3, " The answer is 7.", num_tokens=100, **wrong),
        ],
    )
    assert first["rationale_tokens"] == 11.5
    assert math.isnan(first["share_repeated"])
    assert math.isnan(first["share_hint_copied"])
    second = finish(
        2,
        [
            sample(2, 1, " 1 + 1  =  2. The answer is 2."),  # but for blanks
            sample(2, 2, " Twice 2 is 4. The answer is 4."),
            sample(2, 4, " 2 + 2 = 4. The answer is 4."),  # of another problem
            sample(2, 5, " The answer is 7.", **wrong),
            sample(2, 3, " The answer is 7.", **wrong),  # not kept before either
        ],
    )
    assert second["share_repeated"] == 1 / 3


def test_the_share_of_copied_hints_is_of_the_correct_rationalizations(finish):
    texts = [" The answer is 8.", " 4 + 4 = 8. The answer is 8.", " It is 9."]
    hinted = [
        sample(1, 4, text, kind="rationalization", sample=number, verdict=verdict)
        for number, (text, verdict) in enumerate(
            zip(texts, ("correct", "correct", "unparsed"), strict=True)
        )
    ]
    assert finish(1, [], hinted)["share_hint_copied"] == 1 / 2


def test_an_iteration_that_kept_nothing_has_no_lengths_and_no_repetitions(finish):
    finish(1, [sample(1, 1, " 1 + 1 = 2. The answer is 2.")])
    assert all(map(math.isnan, finish(2, []).values()))


def test_known_answers_have_no_rationales(tmp_path):
    samples = [sample(1, 1, " The answer is 2.", kind="direct", num_tokens=0)]
    selections = select(TASK, [samples], SelectionConfig(), seed=0)
    own = KeptSamples.of([samples], selections)
    store = SampleStore(tmp_path)
    assert collapse_metrics(store, TASK, PROBLEMS, own, (), 1) == {}


def test_texts_of_rationales_are_not_in_memory(tmp_path):
    store = SampleStore(tmp_path)
    for iteration in (1, 2):
        samples = [sample(iteration, n, f"{n} " * 5000) for n in range(1000)]
        store.finish(iteration, "rationale", samples)
        selections = select(TASK, [samples], SelectionConfig(), seed=0)
        store.finish_selection(iteration, selections)
    own, found = store.load_kept(2), store.load(2, "rationale")
    tracemalloc.start()
    metrics = collapse_metrics(store, TASK, PROBLEMS, own, found, 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert metrics["share_repeated"] == 1
    assert peak < 2_000_000  # of 20 MB of texts
