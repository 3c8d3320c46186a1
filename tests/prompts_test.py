import pytest

from star_keras import prompts, tasks
from star_keras.tasks import Problem


def all_tasks():
    class Plain(tasks.Task):
        name = "plain"
        few_shot_examples = (
            tasks.FewShotExample(
                problem=Problem(id="e", question="1?", answer="1"), rationale="One."
            ),
        )

        def problems(self, split):
            answers = ["blue", "7", "A", "-1.5", "a (b) c", "Q: x\nA:"]
            return [
                Problem(id=str(i), question=f"Is it {a}, or ({a})?", answer=a)
                for i, a in enumerate(answers)
            ]

    class WithProblems:
        """Real tasks whose problems are those of the few-shot prompt."""

        def problems(self, split):
            return [example.problem for example in self.few_shot_examples]

    class CommonsenseQA(WithProblems, tasks.CommonsenseQA):
        pass

    class GSM8K(WithProblems, tasks.GSM8K):
        pass

    return [
        Plain(),
        tasks.Arithmetic(train_problems=20, eval_problems=5),
        CommonsenseQA(),
        GSM8K(),
    ]


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_stripping_a_hint_undoes_adding_it(task):
    prefix = prompts.few_shot_prompt(task)
    for problem in task.problems("train"):
        plain = prefix + task.format_question(problem)
        hinted = prompts.add_hint(task, problem, plain)
        assert hinted != plain
        assert problem.answer in hinted.removeprefix(prefix)
        assert prompts.strip_hint(task, problem, hinted) == plain


@pytest.mark.parametrize("task", all_tasks(), ids=lambda task: task.name)
def test_few_shot_examples_grade_as_correct(task):
    for example in task.few_shot_examples:
        response = task.format_response(example.rationale, example.problem)
        answer = task.extract_answer(response)
        assert task.is_correct(answer, example.problem)
        assert task.working_is_valid(response, example.problem)
        assert not any(stop in response for stop in task.stop)


def test_direct_prompt_has_answers_without_rationales():
    task = tasks.Arithmetic(examples_per_length=1)
    direct = prompts.few_shot_prompt(task, direct=True)
    assert "scratch" not in direct
    for example in task.few_shot_examples:
        assert f"Target:\n{example.problem.answer}\n\n" in direct


def test_prompt_of_another_problem_is_refused():
    task = tasks.Arithmetic(train_problems=5)
    first, second = task.problems("train")[:2]
    with pytest.raises(ValueError, match="end with the question of problem"):
        prompts.add_hint(task, first, task.format_question(second))
