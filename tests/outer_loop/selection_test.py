import pytest

from star_keras import tasks
from star_keras.config import SamplingConfig, SelectionConfig, StarConfig
from star_keras.outer_loop.problems import problems_of_run
from star_keras.outer_loop.quotas import make_quota
from star_keras.outer_loop.selection import reject, select, selection_metrics
from star_keras.outer_loop.verification import rationale_pairs
from star_keras.storage.records import GradedSample, Selection
from star_keras.tasks.grading import grade
from star_keras.testing import Doubling

TASK = Doubling()
PROBLEM = TASK.problems("train")[21]  # 42
COMPLETIONS = [
    (" 21 + 21 = 42. The answer is 42.", ""),
    (" 21 cakes + 154 = 42. The answer is 42.", "false_equation"),
    (" The answer is 42.", "no_equation"),
    (" 20 + 1 = 21. The answer is 42.", "no_equation"),
    (" 21 + 21 = 43. The answer is 43.", "incorrect"),
    (" 21 + 21 = 42.", "unparsed"),
    (" 21 + 21 = 42.  The answer is 42.", "duplicate"),
]


def graded(kind="rationale"):
    samples = []
    for number, (completion, _) in enumerate(COMPLETIONS):
        answer, verdict, _ = grade(TASK, PROBLEM, completion)
        sample = GradedSample(
            iteration=1,
            problem=PROBLEM.id,
            problem_class="",
            sample=number,
            kind=kind,
            completion=completion,
            num_tokens=1,
            finish_reason="stop",
            answer=answer,
            verdict=verdict,
        )
        samples.append(sample)
    return samples


@pytest.mark.parametrize("kind", ["rationale", "rationalization"])
def test_rationales_with_wrong_equations_are_left_out_with_their_reason(kind):
    config = SelectionConfig(
        check_equations=True, drop_duplicates=True, weigh_by_problem=True
    )
    selections = select(TASK, [graded(kind)], config, seed=0)
    assert [s.reason for s in selections] == [reason for _, reason in COMPLETIONS]
    assert [s.weight for s in selections] == [1.0] + 6 * [0.0]
    metrics = selection_metrics([], selections, 1)
    assert metrics["not_kept/false_equation"] == 1
    assert metrics["not_kept/no_equation"] == 2


def test_equations_are_not_checked_by_default_nor_in_known_answers():
    for samples, config in (
        (graded(), SelectionConfig()),
        (graded("direct"), SelectionConfig(check_equations=True)),
    ):
        reasons = {s.reason for s in select(TASK, [samples], config, seed=0)}
        assert reasons == {"", "incorrect", "unparsed"}


def test_equations_of_answers_that_are_no_numbers_are_refused_at_the_start():
    config = StarConfig(selection=SelectionConfig(check_equations=True))
    assert len(problems_of_run(TASK, config)["train"]) == 24
    sums = tasks.Arithmetic(train_problems=5, eval_problems=1)
    with pytest.raises(ValueError, match="`check_equations`.*no number.*Leave it out"):
        problems_of_run(sums, config)


class Old(Doubling):
    def rationale_key(self, completion):
        return None


@pytest.mark.parametrize("paired", [True, False])
def test_a_key_of_a_rationale_is_a_text(paired):
    config = SelectionConfig(drop_duplicates=not paired)
    quota = make_quota(Old(), SamplingConfig(), SelectionConfig())
    for use in (
        lambda: select(Old(), [graded()], config, seed=0, paired=paired),
        lambda: quota.outcome(graded()[0]),
        lambda: rationale_pairs(Old(), graded()),
    ):
        with pytest.raises(ValueError, match=f"`rationale_key`.*None.*{PROBLEM.id!r}"):
            use()


@pytest.mark.parametrize("weigh", [True, False])
def test_the_others_of_a_problem_get_the_weight_of_rejected_ones(weigh):
    weights = {"a": 1 / 3 if weigh else 1.0, "b": 1.0}
    selections = [
        Selection(
            iteration=1,
            kind="rationale",
            problem=problem,
            sample=sample,
            weight=weights[problem],
        )
        for problem, sample in [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    ]
    config = SelectionConfig(weigh_by_problem=weigh)
    assert reject(selections, set(), "too_long", config) == selections
    found = reject(selections, {selections[1].key}, "too_long", config)
    assert [s.reason for s in found] == ["", "too_long", "", ""]
    expected = [0.5, 0, 0.5, 1] if weigh else [1, 0, 1, 1]
    assert [s.weight for s in found] == pytest.approx(expected)
