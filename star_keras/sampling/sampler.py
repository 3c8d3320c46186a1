"""The interface of the samplers: prompts in, completions out."""

import abc
import dataclasses
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from star_keras.utils.errors import invalid


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """One completion to sample.

    Attributes:
        prompt: The whole prompt, as text or as token ids. All requests of a
            call have the same kind of prompt. Token ids are used as they are;
            their request has no `prefix`.
        name: Name of the request in errors, e.g. the problem's id.
        seed: Numbers that identify this sample within a run: (iteration,
            problem, sample number). Together with the sampler's seed they
            determine all random choices, whatever the other requests are.
        prefix: The shared prefix: the beginning of the prompt, the same for all
            requests of a call, e.g. the few-shot prompt. It saves work and
            changes no completion.
        log_probs: Whether the completion has the log-probabilities of its tokens.
        add_start_token: Whether the start token comes first, if the preprocessor adds
            one. `False` for texts of chat templates. The same for all requests of a
            call.

    Raises:
        ValueError: if `seed` is no sequence of integers of at least 0.
    """

    prompt: str | tuple[int, ...]
    name: str
    seed: tuple[int, ...] = ()
    prefix: str = ""
    log_probs: bool = False
    add_start_token: bool = True

    def __post_init__(self):
        seed = self.seed
        if not isinstance(seed, Sequence) or not all(
            isinstance(number, numbers.Integral) and number >= 0 for number in seed
        ):
            remedy = f"Correct the request {self.name!r}."
            raise invalid("seed", "a tuple of integers of at least 0", seed, remedy)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
    """The continuation of a prompt by the model.

    Attributes:
        text: The completion up to its stop string or end token, without it.
        num_tokens: Number of sampled tokens, with the stop.
        finish_reason: `"stop"` at a stop string or end token, `"length"` when
            `max_new_tokens` ran out.
        log_probs: The natural logarithm of the probability of each of the
            `num_tokens` tokens, computed in float32, if the request asks for it.
            The probability is that of the model: before temperature, top-k, top-p
            and min-p. The end token has one; of a token that a stop string cuts, it
            is that of the whole token.
        token_ids: The ids of these tokens, if the request asks for log-probabilities.
            Samplers of other packages may leave them out.
        top_log_probs: For each of these tokens the likeliest tokens at its place, pairs
            of a token id and its log-probability, see `RequestSettings`.
    """

    text: str
    num_tokens: int
    finish_reason: Literal["stop", "length"]
    log_probs: tuple[float, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    top_log_probs: tuple[tuple[tuple[int, float], ...], ...] | None = None


class Sampler(abc.ABC):
    """Samples completions from a model."""

    def get_config(self) -> dict:
        """The settings that completions depend on, as JSON.

        A resumed run must have the same settings.
        """
        return {}

    def check(self, requests: Sequence[SampleRequest]):
        """Raise what `sample` would raise for these requests, and sample nothing.

        A run calls it at its start with the longest prompts of each phase. By
        default only empty prompts are refused.

        Raises:
            ValueError: see `sample`.
        """
        for request in requests:
            if not len(request.prompt):
                raise ValueError(f"The prompt of {request.name!r} is empty.")

    @abc.abstractmethod
    def sample(
        self, requests: Sequence[SampleRequest], *, stop: Sequence[str] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Sample one completion for each request.

        Args:
            requests: The prompts, and their names and seeds. A run makes a request
                on each reading from the sequence, so keep few requests to save
                memory.
            stop: Strings that end a completion, matched on the text. The
                tokenizer's end token always ends it.

        Yields:
            Lists of `(index of the request, completion)`, as soon as they are
            complete, in any order.

        Raises:
            ValueError: if the requests are no sequence, or a prompt is neither a text
                nor token ids, is empty, leaves no room for the completion, or does
                not begin with the shared prefix; or `stop` is no sequence of texts
                that are not empty. Nothing is sampled then.
        """

    def sample_stream(
        self,
        prompts: Sequence[SampleRequest],
        wanted: Callable[[int | None], Sequence[tuple[int, tuple[int, ...]]]],
        *,
        stop: Sequence[str] = (),
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Sample while completions decide what else is wanted.

        By default all samples wanted so far are one call of `sample`, and their
        completions decide what the next call samples. Samplers that take requests at
        any time let none of them wait for others.

        Args:
            prompts: One request for each prompt. Its seed is not used.
            wanted: Callable `count -> [(index in prompts, seed), ...]`: at most
                `count` further samples, or all that are wanted now for `None`. Called
                again when completions were yielded. Sampling ends when it returns none
                and no sample is in flight.
            stop: See `sample`.

        Yields:
            Lists of `(number, completion)` in any order. Samples are numbered from 0
            in the order in which `wanted` returned them.

        Raises:
            ValueError: see `sample`.
        """
        first = 0
        while pairs := wanted(None):
            requests = [
                dataclasses.replace(prompts[index], seed=seed) for index, seed in pairs
            ]
            for batch in checked_batches(self, self.sample(requests, stop=stop)):
                yield [
                    (first + i if type(i) is int else i, completion)
                    for i, completion in batch
                ]
            first += len(requests)


def checked_batches(sampler: Sampler, batches) -> Iterator[list[tuple]]:
    """What `sample` or `sample_stream` of a sampler of the user's own yields.

    Args:
        sampler: The sampler, for the error.
        batches: What the method returned.

    Yields:
        Lists of pairs.

    Raises:
        ValueError: if it is no iterable, or yields anything but lists of pairs; names
            the sampler.
    """
    rule = "lists of pairs `(index of the request, completion)`"
    if not isinstance(batches, Iterable):
        raise ValueError(
            f"The sampler {sampler!r} returned {batches!r}. Expected a generator that "
            f"yields {rule}."
        )
    for batch in batches:
        pairs = list(batch) if isinstance(batch, Iterable) else [batch]
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
            raise ValueError(
                f"The sampler {sampler!r} yielded {batch!r}. Expected {rule}."
            )
        yield pairs
