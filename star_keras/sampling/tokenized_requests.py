"""The requests of a call as compact arrays: token ids, random keys, flags."""

import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from star_keras.sampling.sampler import SampleRequest
from star_keras.sampling.sampling_methods import request_key
from star_keras.sampling.scheduler import PartialSample


class TokenizedRequests(Sequence[list[int]]):
    """Token ids of prompts behind their common prefix, a list for each request.

    Holds four bytes for each of these tokens and about ten for each request. Requests
    next to each other with the same prompt share its tokens.

    Args:
        requests: Pairs of a request and the token ids of its whole prompt; at least
            one.
        prefix_ids: Token ids of the prefix alone.
        seed: Seed of the sampler.

    Attributes:
        prefix_ids: Token ids that all prompts begin with, fewer than the shortest
            prompt has. Tokenizers join white space with its neighbours, so the end of
            a prefix may have other tokens in a prompt than alone.
        key_data: uint32 array `(len, 2)`. Random keys, see `request_key`.
        log_probs: bool array `(len,)`. Whether log-probabilities are asked for.

    Raises:
        ValueError: if the requests have different prefixes, or a prompt does not begin
            with its prefix.

    Example:
    ```python
    pairs = [
        (SampleRequest(prompt=text, name=text, prefix="Q: "), ids)
        for text, ids in [("Q: a", [5, 6, 7]), ("Q: b", [5, 6, 8])]
    ]
    tokenized = TokenizedRequests(pairs, prefix_ids=[5, 6], seed=0)
    tokenized.prefix_ids, list(tokenized)  # ([5, 6], [[7], [8]])
    ```
    """

    def __init__(
        self,
        requests: Iterable[tuple[SampleRequest, list[int]]],
        prefix_ids: Sequence[int],
        seed: int,
    ):
        known = list(prefix_ids)
        keys, log_probs = array.array("I"), bytearray()
        token_ids, ends = array.array("i"), array.array("q", [0])
        # Of each different prompt: its first request, and how many tokens of the
        # prefix are not among its stored ones.
        firsts, common = array.array("q"), array.array("q")
        shared, last, prefix = len(known), None, None
        for index, (request, ids) in enumerate(requests):
            prefix = request.prefix if prefix is None else prefix
            _check_prefix(request, prefix)
            keys.extend(request_key(seed, request.seed).tolist())
            log_probs.append(bool(request.log_probs))
            if ids == last:
                continue
            last = ids
            shared = common_length(known[:shared], ids)
            token_ids.extend(ids[shared:])
            ends.append(len(token_ids))
            firsts.append(index)
            common.append(shared)
        self.key_data = np.asarray(keys, "uint32").reshape(-1, 2)
        self.log_probs = np.frombuffer(log_probs, "bool")
        self._token_ids = np.asarray(token_ids, "int32")
        self._ends, self._common = np.asarray(ends), np.asarray(common)
        firsts.append(len(log_probs))
        self._firsts = np.asarray(firsts)
        whole = np.diff(self._ends) + self._common
        shared = min(shared, int(whole.min()) - 1)
        self.prefix_ids, self._prefix = known[:shared], known
        self._lengths = whole - shared

    def __len__(self):
        return len(self.log_probs)

    def __getitem__(self, index):
        index = range(len(self))[index]
        return self._prompt_ids(np.searchsorted(self._firsts, index, "right") - 1)

    def _prompt_ids(self, prompt):
        stored = self._token_ids[self._ends[prompt] : self._ends[prompt + 1]]
        start = len(self.prefix_ids)
        return self._prefix[start : self._common[prompt]] + stored.tolist()

    @property
    def lengths(self) -> np.ndarray:
        """int64 array `(len,)`: the length of each list."""
        return np.repeat(self._lengths, np.diff(self._firsts))

    def samples(
        self, indices: Iterable[int], stop: tuple[str, ...]
    ) -> Iterator[PartialSample]:
        """The samples of some requests, made one by one on demand.

        Args:
            indices: The requests. Those with equal prompts stand together.
            stop: Strings that end these completions.

        Yields:
            `PartialSample`s, whose ids are the indices. Equal prompts are one list.
        """
        prompt_ids = None
        for index in indices:
            if (ids := self[index]) != prompt_ids:
                prompt_ids = ids
            yield PartialSample(
                request_id=index,
                prompt_ids=prompt_ids,
                key_data=self.key_data[index],
                stop=stop,
                log_probs=[] if self.log_probs[index] else None,
            )

    def groups(self) -> Iterator[list[int]]:
        """Indices of requests with equal prompts, the longest prompts first.

        Prompts of a length are in the order of their ids, equal ones in the order of
        their requests.
        """
        order = np.argsort(-self._lengths, kind="stable")
        changes = np.flatnonzero(np.diff(self._lengths[order])) + 1
        for prompts in np.split(order, changes):
            # Big-endian bytes have the order of the ids.
            rows = np.empty((len(prompts), self._lengths[prompts[0]]), ">i4")
            for row, prompt in zip(rows, prompts, strict=True):
                row[:] = self._prompt_ids(prompt)
            rows = rows.view(f"S{rows.shape[1] * 4}")[:, 0]
            by_ids = np.argsort(rows, kind="stable")
            is_new = rows[by_ids][1:] != rows[by_ids][:-1]
            for equal in np.split(prompts[by_ids], np.flatnonzero(is_new) + 1):
                yield [
                    index
                    for prompt in equal
                    for index in range(self._firsts[prompt], self._firsts[prompt + 1])
                ]


def common_length(left, right):
    """Number of equal items at the beginning of two lists."""
    if right[: len(left)] == left:
        return len(left)
    pairs = zip(left, right, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), len(right))


def _check_prefix(request, prefix):
    """Check that a prompt begins with the prefix of all requests of a call."""
    if request.prefix != prefix or (
        prefix and not str(request.prompt).startswith(prefix)
    ):
        raise ValueError(
            f"Invalid value for the prefix of {request.name!r}. Expected "
            "that the prompts of a call all begin with the same prefix. "
            f"Received: prefix={request.prefix!r}, "
            f"prompt={request.prompt!r}, and {prefix!r} before."
        )
