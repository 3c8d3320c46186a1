"""Graded samples in a file, read one at a time: their texts are not in memory."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from star_keras.storage.records import GradedSample, Selection

_FEW_VALUES = {"problem", "problem_class", "kind", "verdict", "reason", "finish_reason"}


class StoredSamples(Sequence[GradedSample]):
    """The samples of a file of JSON lines, which were checked before.

    Holds eight bytes a sample. Iterating reads the file from its beginning.

    Args:
        path: The file.
        starts: int64 array `(len + 1,)`: where each line starts, and where the last
            one ends.
    """

    def __init__(self, path, starts: np.ndarray):
        self.path = path
        self._starts = starts

    def __len__(self):
        return len(self._starts) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self.at(range(len(self))[index]))
        (sample,) = self.at([range(len(self))[index]])
        return sample

    def __iter__(self):
        return self.at(range(len(self)))

    def at(self, indices: Iterable[int]) -> Iterator[GradedSample]:
        """The samples of some lines, in this order."""
        for line in self._lines(indices):
            yield GradedSample(**interned(json.loads(line)))

    def _lines(self, indices):
        if not len(self):
            return
        position = 0
        with self.path.open("rb") as file:
            for index in indices:
                start, end = int(self._starts[index]), int(self._starts[index + 1])
                if start != position:
                    file.seek(start)
                yield file.read(end - start)
                position = end


def interned(values: dict) -> dict:
    """The fields of a record; equal strings of `_FEW_VALUES` are one object."""
    for name in _FEW_VALUES & values.keys():
        if type(values[name]) is str:
            values[name] = sys.intern(values[name])
    return values


class KeptSamples(Sequence[tuple[GradedSample, Selection]]):
    """Samples that are trained on, each with its selection.

    Args:
        parts: Triples `(samples, indices, selections)`: the samples of a phase, the
            indices of those that are trained on, and a selection for each index.
    """

    def __init__(self, parts=()):
        self._parts = [
            (samples, np.asarray(indices, "int64"), list(selections))
            for samples, indices, selections in parts
            if len(indices)
        ]

    @classmethod
    def of(
        cls,
        phases: Sequence[Sequence[GradedSample]],
        selections: Sequence[Selection],
    ) -> "KeptSamples":
        """The samples with a weight.

        Args:
            phases: The samples of each phase.
            selections: One for each sample, in the order of the phases.
        """
        rest = iter(selections)
        parts = []
        for samples in phases:
            own = list(itertools.islice(rest, len(samples)))
            chosen = [i for i, selection in enumerate(own) if selection.weight]
            parts.append((samples, chosen, [own[i] for i in chosen]))
        return cls(parts)

    @property
    def selections(self) -> Iterator[Selection]:
        """The selections alone; no file is read."""
        for _, _, selections in self._parts:
            yield from selections

    def where(self, condition) -> "KeptSamples":
        """Those whose selection fulfils a condition.

        Args:
            condition: Callable `selection -> bool`.
        """
        parts = []
        for samples, indices, selections in self._parts:
            chosen = [i for i, s in enumerate(selections) if condition(s)]
            parts.append((samples, indices[chosen], [selections[i] for i in chosen]))
        return KeptSamples(parts)

    def __add__(self, other: "KeptSamples") -> "KeptSamples":
        return KeptSamples(self._parts + other._parts)

    def __len__(self):
        return sum(len(selections) for _, _, selections in self._parts)

    def __getitem__(self, index):
        index = range(len(self))[index]
        for samples, indices, selections in self._parts:
            if index < len(selections):
                return samples[int(indices[index])], selections[index]
            index -= len(selections)
        raise IndexError(index)

    def __iter__(self):
        for samples, indices, selections in self._parts:
            yield from zip(samples.at(indices), selections, strict=True)
