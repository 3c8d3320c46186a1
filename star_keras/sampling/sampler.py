"""The interface of the samplers: prompts in, completions out."""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """One completion to sample.

    Attributes:
        prompt: The whole prompt, as text; or, for all requests or none, as
            token ids, which stay as they are and have no `prefix`.
        name: What errors call it, e.g. the problem's id.
        seed: Numbers that name this sample within a run: (iteration, problem,
            sample number). With the sampler's seed they decide all random
            choices, whatever else is sampled beside it.
        prefix: The beginning of the prompt that all requests of a call share:
            the few-shot prompt. It changes nothing but the work.
    """

    prompt: str | tuple[int, ...]
    name: str
    seed: tuple[int, ...] = ()
    prefix: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """What the model wrote.

    Attributes:
        text: The completion up to its stop, which is not part of it.
        num_tokens: Tokens sampled, the stop included.
        finish_reason: `"stop"` at a stop string or end token, `"length"` when
            `max_new_tokens` ran out.
    """

    text: str
    num_tokens: int
    finish_reason: Literal["stop", "length"]


class Sampler(abc.ABC):
    """Samples completions from a model."""

    def get_config(self) -> dict:
        """What the completions depend on, as JSON; a run is bound to it."""
        return {}

    @abc.abstractmethod
    def sample(
        self, requests: Sequence[SampleRequest], *, stop: Sequence[str] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Sample one completion for each request.

        Args:
            requests: What to sample.
            stop: Strings that end a completion, matched on the text. The
                tokenizer's end token always does.

        Yields:
            Lists of `(index of the request, completion)` as they are done,
            in any order.

        Raises:
            ValueError: if a prompt leaves no room for the completion, or does
                not begin with the prefix of the call. Nothing is sampled then.
        """
