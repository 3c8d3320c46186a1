"""Problems in, graded rationales out: prompt, sampler and grader in a row."""

import zlib
from collections.abc import Iterator, Sequence

from star_keras import prompts
from star_keras.grading import grade
from star_keras.rationales import PromptKind, Rationale
from star_keras.sampling.sampler import Sampler, SampleRequest
from star_keras.tasks import Problem, Task


def build_prompt(task: Task, problem: Problem, *, prefix: str, hint: bool) -> str:
    """The prompt of one problem behind a few-shot prompt (or `""`)."""
    prompt = prefix + task.format_question(problem)
    return prompts.add_hint(task, problem, prompt) if hint else prompt


def attempt(
    task: Task,
    samples: Sequence[tuple[Problem, int]],
    sampler: Sampler,
    *,
    kind: PromptKind,
    prefix: str = "",
    iteration: int = 0,
    check_working: bool = False,
) -> Iterator[list[Rationale]]:
    """Let a model try problems, and grade what it writes.

    Args:
        task: Their task.
        samples: Pairs of a problem and the number of the sample, from 0.
        sampler: Samples the completions.
        kind: `"rationalization"` shows the answers as hints.
        prefix: The few-shot prompt.
        iteration: Iteration of the outer loop, for records and seeds.
        check_working: Whether right answers also need right steps.

    Yields:
        Lists of rationales, a sampled batch at a time, in any order. The
        correct ones weigh 1 unless they are of an evaluation.
    """
    hint = kind == "rationalization"
    requests = [
        SampleRequest(
            prompt=build_prompt(task, problem, prefix=prefix, hint=hint),
            name=problem.id,
            seed=(iteration, zlib.crc32(problem.id.encode()), sample, int(hint)),
            prefix=prefix,
        )
        for problem, sample in samples
    ]
    for batch in sampler.sample(requests, stop=task.stop):
        rationales = []
        for i, completion in batch:
            problem, sample = samples[i]
            answer, verdict = grade(
                task, problem, completion.text, check_working=check_working
            )
            trainable = verdict == "correct" and kind != "evaluation"
            rationales.append(
                Rationale(
                    iteration=iteration,
                    problem=problem.id,
                    problem_class=problem.problem_class,
                    sample=sample,
                    prompt_kind=kind,
                    completion=completion.text,
                    finish_reason=completion.finish_reason,
                    answer=answer,
                    verdict=verdict,
                    weight=float(trainable),
                )
            )
        yield rationales
