"""Beginnings that prompts share, found as the prompts come."""

import collections
import functools
from collections.abc import Sequence

from star_keras.sampling.tokenized_requests import common_length

# Shorter ones are computed as fast as they are joined.
_LEAST = 64
# Groups of prompts that are compared with the next.
_RECENT = 8


class FoundPrefixes:
    """Caches of beginnings that several prompts have in common.

    A beginning of at least 64 tokens is kept when a group of prompts shares it, or has
    it in common with one of the groups before. The one that was used longest ago goes.

    Args:
        compute: Function from a list of token ids to a shared prefix, see
            `ContinuousSteps`.
        most: Caches to keep.

    Example:
    ```python
    found = FoundPrefixes(compute=len, most=2)
    examples = list(range(100))
    found.find([[*examples, 7, 8, 9]])  # None
    found.find([[*examples, 5, 6]])  # (100, 100)
    found.find([[*examples, 1, 2], [*examples, 3, 4, 5]])  # (100, 100)
    ```
    """

    def __init__(self, compute, most: int):
        self._compute, self._most = compute, most
        self._kept: dict[tuple[int, ...], tuple] = {}
        self._recent: collections.deque[list[int]] = collections.deque(maxlen=_RECENT)

    def find(self, prompts: Sequence[list[int]]) -> tuple[tuple, int] | None:
        """The longest kept beginning of prompts; keeps a new one if it is longer.

        Args:
            prompts: Token ids of a group of prompts.

        Returns:
            The shared prefix and its length in tokens, with at least two tokens of each
            prompt behind it; `None` if there is none.
        """
        shared = functools.reduce(lambda x, y: x[: common_length(x, y)], prompts)
        shared = shared[: min(map(len, prompts)) - 2]
        best = max(
            (ids for ids in self._kept if shared[: len(ids)] == list(ids)),
            key=len,
            default=(),
        )
        length = len(shared) if len(prompts) > 1 else 0
        length = max([length, *(common_length(x, shared) for x in self._recent)])
        if shared not in self._recent:
            self._recent.append(shared)
        if length >= len(best) + _LEAST:
            best = tuple(shared[:length])
            self._kept[best] = self._compute(list(best))
        if not best:
            return None
        # The last used is the last of the dict.
        self._kept[best] = prefix = self._kept.pop(best)
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return prefix, len(best)
