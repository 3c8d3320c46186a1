"""Where the rationales come from that are trained on: the model, or known answers."""

import dataclasses
import itertools
from collections.abc import Sequence

from star_keras.config import StarConfig
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.sampling.sampler import Completion, Sampler
from star_keras.storage.records import SampleKind
from star_keras.tasks.task import Problem

# Answers that are graded and written together.
_BATCH = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class RationaleSource:
    """How an iteration gets its rationales.

    Attributes:
        kind: The kind of its unhinted samples.
        sampler: Samples them, with and without a hint.
        num_samples: Samples a problem.
        check_working: Whether a right answer needs right steps too.
    """

    kind: SampleKind
    sampler: Sampler
    num_samples: int = 1
    check_working: bool = False


def rationale_source(
    prompts: PromptBuilder,
    problems: Sequence[Problem],
    sampler: Sampler,
    config: StarConfig,
) -> RationaleSource:
    """The source that a configuration asks for.

    Args:
        prompts: Makes the prompts.
        problems: The training problems.
        sampler: The sampler of the model; not used with `direct`.
        config: All settings.
    """
    if config.sampling.direct:
        return RationaleSource(kind="direct", sampler=KnownAnswers(prompts, problems))
    return RationaleSource(
        kind="rationale",
        sampler=sampler,
        num_samples=config.sampling.samples_per_problem,
        check_working=config.selection.check_working,
    )


class KnownAnswers(Sampler):
    """Answers each training problem with its known answer, without a rationale.

    Args:
        prompts: Formats the answers.
        problems: Problems that may be asked for. A request's `name` is the id
            of its problem.
    """

    def __init__(self, prompts: PromptBuilder, problems: Sequence[Problem]):
        self._prompts = prompts
        self._by_id = {problem.id: problem for problem in problems}

    def sample(self, requests, *, stop=()):
        rest = enumerate(requests)
        while several := list(itertools.islice(rest, _BATCH)):
            texts = [(i, self.response(request.name)) for i, request in several]
            yield [
                (i, Completion(text=text, num_tokens=0, finish_reason="stop"))
                for i, text in texts
            ]

    def response(self, problem_id: str) -> str:
        """The response to a problem."""
        return self._prompts.response("", self._by_id[problem_id])
