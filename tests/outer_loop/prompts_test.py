import pytest

from star_keras import tasks
from star_keras.outer_loop.prompts import PromptBuilder
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


@pytest.fixture(params=all_tasks(), ids=lambda task: task.name)
def task(request):
    return request.param


def test_a_prompt_is_the_examples_and_the_question_and_a_hint_is_in_both(task):
    prompts, plain_prompts = PromptBuilder(task), PromptBuilder(task, few_shot=False)
    for problem in task.problems("train"):
        for hint in (False, True):
            question = task.format_question(problem, hint=hint)
            assert plain_prompts.build(problem, hint) == question
            assert prompts.build(problem, hint) == prompts.prefix(hint) + question
            assert prompts.question(problem, hint) == question
        hinted = plain_prompts.build(problem, True)
        assert hinted != plain_prompts.build(problem)
        assert problem.answer in hinted
    assert prompts.prefix(True) != prompts.prefix(False)
    assert plain_prompts.prefix() == ""


def test_few_shot_examples_grade_as_correct(task):
    for example in task.few_shot_examples:
        response = task.format_response(example.rationale, example.problem)
        answer = task.extract_answer(response)
        assert task.is_correct(answer, example.problem)
        assert task.working_fault(response, example.problem) == ""
        assert not any(stop in response for stop in task.stop)


def test_direct_prompt_has_answers_without_rationales():
    task = tasks.Arithmetic(examples_per_length=1)
    direct = PromptBuilder(task, direct=True).prefix()
    assert "scratch" not in direct
    for example in task.few_shot_examples:
        assert f"Target:\n{example.problem.answer}\n\n" in direct
