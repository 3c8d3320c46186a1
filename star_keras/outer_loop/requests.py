"""The requests of a phase, made one by one on reading."""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.sampling.sampler import SampleRequest
from star_keras.storage.records import GradedSample
from star_keras.tasks.task import Problem


class SampleOrder:
    """The canonical order of samples: a place from 0 for each of them.

    Args:
        problems: The problems.
        num_samples: Samples a problem.
    """

    def __init__(self, problems: Sequence[Problem], num_samples: int):
        self._problems, self._num_samples = problems, num_samples
        self._first = {p.id: i * num_samples for i, p in enumerate(problems)}

    def __len__(self):
        return len(self._problems) * self._num_samples

    def pair(self, place: int) -> tuple[Problem, int]:
        """The problem at a place, and the number of the sample."""
        problem, number = divmod(int(place), self._num_samples)
        return self._problems[problem], number

    def places(self, samples: Iterable[GradedSample]) -> np.ndarray:
        """int64 array of the places of samples; -1 for samples without a place."""
        return np.fromiter(
            (
                self._first[s.problem] + s.sample
                if s.problem in self._first and s.sample < self._num_samples
                else -1
                for s in samples
            ),
            "int64",
        )


def sample_seed(
    problem: Problem, *, hint: bool, iteration: int, number: int
) -> tuple[int, ...]:
    """The numbers that identify a sample in a run, see `SampleRequest.seed`.

    Args:
        problem: The problem.
        hint: See `make_request`.
        iteration: See `make_request`.
        number: See `make_request`.
    """
    return iteration, zlib.crc32(problem.id.encode()), number, int(hint)


def make_request(
    prompts: PromptBuilder,
    problem: Problem,
    *,
    hint: bool,
    iteration: int = 0,
    number: int = 0,
    prompt: str | None = None,
) -> SampleRequest:
    """The request of a sample.

    Args:
        prompts: Makes the prompt.
        problem: The problem.
        hint: Whether the prompt shows the answer.
        iteration: Iteration of the outer loop.
        number: Number of the sample of this problem.
        prompt: The prompt, if already built.
    """
    return SampleRequest(
        prompt=prompts.build(problem, hint) if prompt is None else prompt,
        name=problem.id,
        seed=sample_seed(problem, hint=hint, iteration=iteration, number=number),
        prefix=prompts.prefix(hint),
        add_start_token=prompts.chat is None,
    )


class PhaseRequests(Sequence[SampleRequest]):
    """The requests of a phase; their prompts are not in memory.

    Holds eight bytes a request. A slice is again a sequence of this class.

    Args:
        prompts: Makes the prompts.
        order: The order of all samples of the phase.
        places: int64 array. The place of each request.
        hint: See `make_request`.
        iteration: See `make_request`.
    """

    def __init__(
        self,
        prompts: PromptBuilder,
        order: SampleOrder,
        places: np.ndarray,
        *,
        hint: bool,
        iteration: int,
    ):
        self.prompts, self.hint, self.iteration = prompts, hint, iteration
        self._order, self._places = order, places
        # Samples of a problem are next to each other and have one prompt.
        self._last = None, None

    def __len__(self):
        return len(self._places)

    def pair(self, index: int) -> tuple[Problem, int]:
        """The problem of a request, and the number of its sample."""
        return self._order.pair(self._places[index])

    def __getitem__(self, index):
        hint, iteration = self.hint, self.iteration
        if isinstance(index, slice):
            return PhaseRequests(
                self.prompts,
                self._order,
                self._places[index],
                hint=hint,
                iteration=iteration,
            )
        problem, number = self.pair(index)
        last, prompt = self._last
        if last is not problem:
            prompt = self.prompts.build(problem, hint)
            self._last = problem, prompt
        return make_request(
            self.prompts,
            problem,
            hint=hint,
            iteration=iteration,
            number=number,
            prompt=prompt,
        )
