"""From a completion to a graded sample."""

from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.sampling.sampler import Completion, Sampler
from star_keras.storage.records import GradedSample, SampleKind
from star_keras.tasks.grading import grade
from star_keras.tasks.task import Problem
from star_keras.utils.records import is_count, is_text


def grade_completion(
    prompts: PromptBuilder,
    problem: Problem,
    completion: Completion,
    *,
    kind: SampleKind,
    iteration: int,
    number: int,
    check_working: bool,
) -> GradedSample:
    """The graded sample of a completion.

    Args:
        prompts: Made the prompt; its task grades.
        problem: The problem.
        completion: The completion.
        kind: Kind of the sample.
        iteration: Its iteration.
        number: Its number among the samples of the problem.
        check_working: Whether a right answer needs right steps too.
    """
    judged = grade(
        prompts.task,
        problem,
        completion.text,
        check_working=check_working,
        opened=prompts.opens_thoughts,
    )
    return GradedSample(
        iteration=iteration,
        problem=problem.id,
        problem_class=problem.problem_class,
        sample=number,
        kind=kind,
        completion=completion.text,
        num_tokens=completion.num_tokens,
        finish_reason=completion.finish_reason,
        **judged._asdict(),
    )


def check_completion(sampler: Sampler, completion):
    """Check what a sampler of the user's own returns.

    Raises:
        ValueError: if it is no `Completion` with valid values; names the sampler.
    """
    if not isinstance(completion, Completion):
        rule = "a `star_keras.sampling.Completion`"
    elif not is_text(completion.text):
        rule = "a `text` that UTF-8 can encode, without lone surrogates"
    elif not is_count(completion.num_tokens):
        rule = "a `num_tokens` that is an integer of at least 0"
    elif completion.finish_reason not in ("stop", "length"):
        rule = "a `finish_reason` of 'stop' or 'length'"
    else:
        return
    raise ValueError(
        f"The sampler {sampler!r} returned {completion!r}. Expected {rule}."
    )
