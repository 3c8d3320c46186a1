import pytest

from star_keras import tasks
from star_keras.config import SelectionConfig, StarConfig
from star_keras.outer_loop.problems import problems_of_run
from star_keras.outer_loop.records import GradedSample
from star_keras.outer_loop.selection import select, selection_metrics
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
