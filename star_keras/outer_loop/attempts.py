"""Problems in, graded samples out: prompt, sampler and grader in a row."""

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence

from star_keras.distribution import processes
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.records import GradedSample, SampleKind
from star_keras.outer_loop.sample_store import SampleStore
from star_keras.sampling.sampler import Completion, Sampler, SampleRequest
from star_keras.tasks.grading import grade
from star_keras.tasks.task import Problem
from star_keras.utils.records import is_count, is_text
from star_keras.utils.settings import checked


def attempt(
    prompts: PromptBuilder,
    problems: Sequence[Problem],
    sampler: Sampler,
    *,
    kind: SampleKind,
    iteration: int = 0,
    num_samples: int = 1,
    check_working: bool = False,
    store: SampleStore | None = None,
    on_batch: Callable[[Sequence[GradedSample], int, int], None] | None = None,
) -> list[GradedSample]:
    """Sample and grade completions of problems.

    With a store, samples are journaled as they are graded. A finished phase is
    read from its file, and an interrupted one continues from its journal.

    Args:
        prompts: Makes the prompts; its task grades.
        problems: The problems.
        sampler: Samples the completions.
        kind: `"rationalization"` shows answers as hints.
        iteration: Iteration of the outer loop, for records and seeds.
        num_samples: Completions a problem.
        check_working: Whether a right answer needs right steps too.
        store: Keeps the samples on disk. Defaults to nowhere.
        on_batch: Called as `on_batch(new samples, number done, number wanted)`,
            once before the sampling and then for each batch in the store. An
            exception that it raises ends the sampling.

    Returns:
        The samples in canonical order: problem by problem, each with its
        samples in order.

    Raises:
        ValueError: if a prompt leaves no room for a completion, stored samples
            are not those of these problems, or the sampler leaves out a request,
            returns one twice, or returns no `Completion` with valid values.
        OSError: if the store cannot be written.
    """
    num_samples = checked("num_samples", int, num_samples, at_least=1)
    wanted = list(itertools.product(problems, range(num_samples)))
    keys = [(iteration, kind, problem.id, n) for problem, n in wanted]
    finished, done = None, {}
    if store is not None:
        finished = store.load(iteration, kind)
        done = {s.key: s for s in finished or store.load_journal(iteration, kind)}
        # No process writes before all have read.
        processes.sync(f"the samples of iteration {iteration} are read: {kind}")
        _check_keys(keys, done, finished, store.path(iteration, kind))
    if on_batch is not None:
        on_batch([], len(done), len(keys))
    missing = [pair for pair, key in zip(wanted, keys, strict=True) if key not in done]
    batches = _sample_and_grade(
        prompts, missing, sampler, kind, iteration, check_working
    )
    for batch in batches if missing else ():
        if store is not None:
            store.append(iteration, kind, batch)
        done |= {sample.key: sample for sample in batch}
        if on_batch is not None:
            on_batch(batch, len(done), len(keys))
    lost = [key for key in keys if key not in done]
    if lost:
        raise ValueError(
            f"The sampler {sampler!r} left out {len(lost)} of {len(missing)} requests, "
            f"the first of problem {lost[0][2]!r}. It must complete each of them."
        )
    samples = [done[key] for key in keys]
    if store is not None:
        store.finish(iteration, kind, samples)
    return samples


def make_request(
    prompts: PromptBuilder,
    problem: Problem,
    *,
    hint: bool,
    iteration: int = 0,
    number: int = 0,
) -> SampleRequest:
    """The request of a sample.

    Args:
        prompts: Makes the prompt.
        problem: The problem.
        hint: Whether the prompt shows the answer.
        iteration: Iteration of the outer loop.
        number: Number of the sample of this problem.
    """
    return SampleRequest(
        prompt=prompts.build(problem, hint),
        name=problem.id,
        seed=(iteration, zlib.crc32(problem.id.encode()), number, int(hint)),
        prefix=prompts.prefix(hint),
        add_start_token=prompts.chat is None,
    )


def _check_completion(sampler, completion):
    """Check what a sampler of the user's own returns."""
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


def _check_keys(keys, done, finished, path):
    strange = sorted(done.keys() - set(keys))
    if strange or (finished is not None and [s.key for s in finished] != keys):
        number = len(done) if finished is None else len(finished)
        raise ValueError(
            f"{path} or its journal does not hold the samples of this run: expected "
            f"{len(keys)}, received {number}"
            + (f", among them {strange[0]}" if strange else "")
            + ". Put the file back, or remove it to sample again."
        )


def _sample_and_grade(
    prompts, samples, sampler, kind, iteration, check_working
) -> Iterator[list[GradedSample]]:
    task, hint = prompts.task, kind == "rationalization"
    requests = [
        make_request(prompts, problem, hint=hint, iteration=iteration, number=n)
        for problem, n in samples
    ]
    missing = set(range(len(samples)))
    for batch in sampler.sample(requests, stop=prompts.stop):
        graded = []
        for i, completion in batch:
            if i not in missing:
                fault = "twice" if is_count(i) and i < len(samples) else "unasked"
                raise ValueError(
                    f"The sampler {sampler!r} returned request {i!r} {fault}. Expected "
                    f"each index from 0 to {len(samples) - 1} once."
                )
            missing.remove(i)
            _check_completion(sampler, completion)
            problem, n = samples[i]
            answer, verdict = grade(
                task,
                problem,
                completion.text,
                check_working=check_working,
                opened=prompts.opens_thoughts,
            )
            graded.append(
                GradedSample(
                    iteration=iteration,
                    problem=problem.id,
                    problem_class=problem.problem_class,
                    sample=n,
                    kind=kind,
                    completion=completion.text,
                    num_tokens=completion.num_tokens,
                    finish_reason=completion.finish_reason,
                    answer=answer,
                    verdict=verdict,
                )
            )
        yield graded
