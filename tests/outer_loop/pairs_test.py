import pytest

from star_keras.config import SelectionConfig
from star_keras.outer_loop.pairs import check_pairs, pair_order
from star_keras.outer_loop.selection import select, selection_metrics
from star_keras.storage.records import GradedSample
from star_keras.testing import Doubling
from tests.callbacks.conftest import make_config

TASK = Doubling()


def samples(problem, rows, kind="rationale"):
    return [
        GradedSample(
            iteration=1,
            problem=problem,
            problem_class="",
            sample=number,
            kind=kind,
            completion=completion,
            num_tokens=1,
            finish_reason=finish,
            answer=None,
            verdict=verdict,
        )
        for number, (completion, verdict, finish) in enumerate(rows)
    ]


PLAIN = samples(
    "a",
    [
        (" x", "incorrect", "length"),
        (" y", "incorrect", "stop"),
        (" r", "correct", "stop"),
        (" y ", "incorrect", "stop"),
        (" s", "correct", "stop"),
        (" z", "unparsed", "stop"),
        (" t", "correct", "stop"),
        (" ", "unparsed", "stop"),
    ],
) + samples("b", [(" n", "incorrect", "stop"), (" m", "incorrect", "stop")])
HINTED = samples(
    "b", [(" l", "incorrect", "stop"), (" r", "correct", "stop")], "rationalization"
)


def selections(**settings):
    config = SelectionConfig(**settings)
    return select(TASK, [PLAIN, HINTED], config, 0, paired=True)


def test_pairs_are_of_a_right_and_a_different_wrong_completion_that_has_ended():
    found = selections()
    assert [s.reason for s in found] == [
        *("incorrect", "", "", "incorrect", "", "", "unpaired", "unparsed"),
        *("", "incorrect"),
        *("incorrect", ""),
    ]
    completions = [s.completion for s in PLAIN + HINTED]
    used = [i for i, s in enumerate(found) if s.weight]
    order = pair_order([found[i] for i in used])
    assert [completions[used[i]] for i in order] == [" r", " y", " s", " z", " r", " n"]
    assert [found[used[i]].is_wrong for i in order] == [False, True] * 3
    right = [s for s in found if s.weight and not s.is_wrong]
    metrics = selection_metrics(right, found, 2)
    assert metrics["num_rationales"] == 3
    assert (metrics["share_kept"], metrics["share_rationalized"]) == (0.5, 0.5)
    assert metrics["not_kept/unpaired"] == 1


def test_the_pairs_of_a_problem_can_be_capped_and_weigh_one_together():
    found = selections(max_rationales_per_problem=1)
    assert sum(s.weight for s in found) == 4
    found = selections(weigh_by_problem=True)
    assert [s.weight for s in found if s.weight] == [0.5] * 4 + [1.0] * 2


def test_a_completion_without_its_partner_is_an_error():
    used = [s for s in selections() if s.weight]
    with pytest.raises(ValueError, match="another objective"):
        pair_order(used[1:])


@pytest.mark.parametrize(
    "setting",
    [
        {"direct": True},
        {"mastered_after": 2},
        {"p_show_hint_save": 0.5},
        {"sample_until_trained": True},
    ],
)
def test_settings_that_make_no_pairs_are_refused(setting):
    (name,) = setting
    check_pairs(make_config())
    with pytest.raises(ValueError, match=f"`{name}`.*objective='rpo'"):
        check_pairs(make_config(**setting))
