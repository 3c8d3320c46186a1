"""Checks of a task, before anything is sampled."""

from collections.abc import Sequence

from star_keras.tasks.grading import grade
from star_keras.tasks.task import FewShotExample, Problem, Task
from star_keras.tasks.task_calls import call_task
from star_keras.utils.errors import invalid
from star_keras.utils.texts import check_stop, check_texts


def check_task(task: Task):
    """Check the attributes of a task.

    Args:
        task: The task.

    Raises:
        ValueError: if it is no `Task`, its `name` is no text, its `stop` or `splits` is
            no sequence of texts that are not empty, its `few_shot_examples` is no
            sequence, or a format lacks a placeholder.
    """
    if not isinstance(task, Task):
        remedy = "Make one, e.g. by `tasks.get('arithmetic')`."
        raise invalid("task", "an object of a `star_keras.tasks.Task`", task, remedy)
    name = getattr(task, "name", None)
    if not isinstance(name, str) or not name:
        remedy = f"Give the class `{type(task).__name__}` a `name`."
        raise invalid("name", "a text that is not empty", name, remedy)
    remedy = f"Correct the task {name!r}."
    check_stop(task.stop, remedy)
    check_texts("splits", task.splits, '("train", "eval")', remedy)
    examples = task.few_shot_examples
    # A generator would be empty at the second reading.
    if not isinstance(examples, Sequence) or isinstance(examples, str):
        rule = "a sequence of `FewShotExample`, `()` for none"
        raise invalid("few_shot_examples", rule, examples, remedy)
    if type(task).format_question is Task.format_question:
        _check_format(task, "question_format", ["question"], remedy)
        shown = ["question"] if task.marks_hints else ["question", "answer"]
        _check_format(task, "hint_format", shown, remedy)


def _check_format(task, name, fields, remedy):
    text = getattr(task, name)
    placeholders = [f"{{{field}}}" for field in fields]
    if not isinstance(text, str) or any(x not in text for x in placeholders):
        raise invalid(name, f"a text with {' and '.join(placeholders)}", text, remedy)


def check_problem(task: Task, problem: Problem, needs_answer: bool = True):
    """Check that the answer of a problem can be right, and what the task reads.

    Args:
        task: Its task.
        problem: The problem.
        needs_answer: Whether a problem without an answer is an error.

    Raises:
        ValueError: if it is no `Problem`, has no answer, or its response without a
            rationale holds a stop string or is not graded as correct; names the
            problem. If a method of the task returns a value of another type.
    """
    if not isinstance(problem, Problem):
        remedy = f"Correct `problems` of the task {task.name!r}."
        raise invalid("problem", "a `Problem`", problem, remedy)
    if problem.answer is None and needs_answer:
        remedy = "With --answers=majority training problems need none."
        rule = f"a text in the problem {problem.id!r} of the task {task.name!r}"
        raise invalid("answer", rule, None, remedy)
    # A model may stop at once.
    call_task(task, "extract_answer", problem.id, "")
    if problem.answer is None:
        _check_text(task, "format_question", task.format_question(problem))
        return
    response = task.format_response("", problem)
    _check_response(task, problem, response, f"Problem {problem.id!r}")


def check_example(task: Task, example: FewShotExample):
    """Check that the response of a worked example is right.

    Args:
        task: Its task.
        example: The worked example.

    Raises:
        ValueError: if it is no `FewShotExample`, or its response, with or without
            the rationale, holds a stop string or is not graded as correct; names
            the example. If a method of the task returns a value of another type.
    """
    if not isinstance(example, FewShotExample):
        remedy = f"Correct `few_shot_examples` of the task {task.name!r}."
        raise invalid("example", "a `FewShotExample`", example, remedy)
    for rationale in (example.rationale, ""):
        response = task.format_response(rationale, example.problem)
        what = f"Worked example {example.problem.id!r}"
        _check_response(task, example.problem, response, what)


def _check_response(task, problem, response, what):
    for hint in (False, True):
        question = task.format_question(problem, hint=hint)
        _check_text(task, "format_question", question)
    _check_text(task, "format_response", response)
    for stop in task.stop:
        if stop in response:
            raise ValueError(
                f"{what} of the task {task.name!r} can never be right: its response "
                f"holds the stop string {stop!r}, where sampling ends. Received: "
                f"{response!r}. Take it out of the answer or the rationale, or change "
                "the task's `stop`."
            )
    answer, verdict, reason = grade(task, problem, response)
    if verdict != "correct":
        raise ValueError(
            f"{what} of the task {task.name!r} can never be right: its own response "
            f"does not read as its answer {problem.answer!r}. Received: {response!r}, "
            f"read as {answer!r}: {reason}. Correct the answer or the rationale, or "
            "the task's `format_response` and `extract_answer`."
        )
    for method in ("extract_answer_flexible", "rationale_key"):
        call_task(task, method, problem.id, response)


def _check_text(task, name, text):
    if not isinstance(text, str):
        rule = f"a text from `{name}` of the task {task.name!r}"
        raise invalid(name, rule, text, "Let it return one.")
