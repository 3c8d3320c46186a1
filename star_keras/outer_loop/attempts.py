"""Problems in, graded samples out: prompt, sampler and grader in a row."""

import numbers
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from star_keras.distribution import processes
from star_keras.outer_loop.graded_completions import check_completion, grade_completion
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.requests import PhaseRequests, SampleOrder
from star_keras.sampling.sampler import Sampler, checked_batches
from star_keras.storage.records import GradedSample, SampleKind
from star_keras.storage.sample_store import SampleStore
from star_keras.tasks.task import Problem
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
) -> Sequence[GradedSample]:
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
        samples in order. With a store they are read from its file, see
        `StoredSamples`.

    Raises:
        ValueError: if a prompt leaves no room for a completion, stored samples
            are not those of these problems, or the sampler leaves out a request,
            returns one twice, yields no lists of pairs, or returns no `Completion`
            with valid values.
        OSError: if the store cannot be written.
    """
    num_samples = checked("num_samples", int, num_samples, at_least=1)
    order = SampleOrder(problems, num_samples)
    finished, done, found = None, np.zeros(len(order), bool), {}
    if store is not None:
        finished = store.load(iteration, kind)
        known = finished
        if finished is None:
            known = store.load_journal(iteration, kind)
        # No process writes before all have read.
        processes.sync(f"the samples of iteration {iteration} are read: {kind}")
        places = order.places(known)
        is_fit = places.min(initial=0) >= 0
        if finished is not None:
            is_fit = np.array_equal(places, np.arange(len(order)))
        if not is_fit:
            raise _strange(order, places, known, store.path(iteration, kind))
        done[places] = True
    num_done = int(done.sum())
    if on_batch is not None:
        on_batch([], num_done, len(order))
    missing = np.flatnonzero(~done)
    requests = PhaseRequests(
        prompts, order, missing, hint=kind == "rationalization", iteration=iteration
    )
    batches = _sample_and_grade(requests, sampler, kind, check_working)
    for batch in batches if missing.size else ():
        places = order.places(batch)
        if store is not None:
            store.append(iteration, kind, batch)
        else:
            found |= zip(places.tolist(), batch, strict=True)
        done[places] = True
        num_done += len(batch)
        if on_batch is not None:
            on_batch(batch, num_done, len(order))
    lost = np.flatnonzero(~done)
    if lost.size:
        raise ValueError(
            f"The sampler {sampler!r} left out {lost.size} of {missing.size} requests, "
            f"the first of problem {order.pair(lost[0])[0].id!r}. It must complete "
            "each of them."
        )
    if store is None:
        return [found[place] for place in range(len(order))]
    if finished is not None:
        store.finish(iteration, kind, ())  # a kill has perhaps left the journal
        return finished
    if store.writes:
        journal = store.load_journal(iteration, kind)
        store.finish(iteration, kind, journal.at(np.argsort(order.places(journal))))
    processes.sync(f"the samples of iteration {iteration} are written: {kind}")
    return store.load(iteration, kind)


def _strange(order, places, samples, path):
    """The error of stored samples that are not those of the problems."""
    strange = np.flatnonzero(places < 0)
    return ValueError(
        f"{path} or its journal does not hold the samples of this run: expected "
        f"{len(order)}, received {len(samples)}"
        + (f", among them {samples[int(strange[0])].key}" if strange.size else "")
        + ". Put the file back, or remove it to sample again."
    )


def _sample_and_grade(
    requests: PhaseRequests, sampler, kind, check_working
) -> Iterator[list[GradedSample]]:
    prompts, is_missing = requests.prompts, bytearray([True]) * len(requests)
    batches = sampler.sample(requests, stop=prompts.stop)
    for batch in checked_batches(sampler, batches):
        graded = []
        for i, completion in batch:
            is_asked = isinstance(i, numbers.Integral) and 0 <= i < len(requests)
            is_asked = is_asked and not isinstance(i, bool)
            if not is_asked or not is_missing[i]:
                fault = "twice" if is_asked else "unasked"
                raise ValueError(
                    f"The sampler {sampler!r} returned request {i!r} {fault}. Expected "
                    f"each index from 0 to {len(requests) - 1} once."
                )
            is_missing[i] = False
            check_completion(sampler, completion)
            problem, number = requests.pair(i)
            sample = grade_completion(
                prompts,
                problem,
                completion,
                kind=kind,
                iteration=requests.iteration,
                number=number,
                check_working=check_working,
            )
            graded.append(sample)
        yield graded
