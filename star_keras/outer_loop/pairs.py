"""Pairs of a right and a wrong completion of a problem.

A right one is any that is trained on without pairs. Wrong ones are without a hint,
different, and not cut off. The first right and the first wrong one of a problem are a
pair, the second ones the next, and so on.
"""

import collections
from collections.abc import Iterable

from star_keras.config import StarConfig
from star_keras.storage.records import GradedSample, Selection
from star_keras.utils.errors import invalid


def check_pairs(config: StarConfig):
    """Check that the settings of a run allow pairs.

    Args:
        config: All settings.

    Raises:
        ValueError: if one does not; names it.
    """
    sampling, selection = config.sampling, config.selection
    for settings, name, default, why in (
        (sampling, "direct", False, "answers alone are never wrong"),
        (sampling, "mastered_after", 0, "mastered problems get no wrong completion"),
        (sampling, "sample_until_trained", False, "it counts right rationales"),
        (selection, "p_show_hint_save", 0.0, "both sides of a pair have one prompt"),
        (selection, "answers", "known", "a vote knows no wrong completion"),
    ):
        value = getattr(settings, name)
        if value != default:
            rule = f"{default!r} with objective='rpo', which needs pairs: {why}"
            raise invalid(name, rule, value, f"Set {name}={default}.")


class Pairs:
    """Finds the pairs among samples that come one by one.

    Attributes:
        counts: The number of pairs of each problem, after `reasons`.
    """

    def __init__(self):
        self.counts: collections.Counter[str] = collections.Counter()
        self._right: dict[str, list[int]] = collections.defaultdict(list)
        self._wrong: dict[str, list[int]] = collections.defaultdict(list)
        self._seen: set[tuple[str, str]] = set()
        self._total = 0

    def add(self, sample: GradedSample, reason: str, key: str):
        """Add the next sample.

        Args:
            sample: The sample.
            reason: Why it cannot be the right one of a pair, or nothing.
            key: The same for equal completions of a problem.
        """
        if not reason:
            self._right[sample.problem].append(self._total)
        elif (
            sample.verdict != "correct"
            and sample.kind == "rationale"
            and sample.finish_reason == "stop"
            and key
            and (sample.problem, key) not in self._seen
        ):
            self._seen.add((sample.problem, key))
            self._wrong[sample.problem].append(self._total)
        self._total += 1

    def reasons(self, reasons: list[str]) -> list[str]:
        """The reasons of all samples: none for those in pairs.

        Args:
            reasons: Those before the pairing. Right ones without a wrong one are
                `"unpaired"`; wrong ones keep theirs.
        """
        reasons = list(reasons)
        for problem, right in self._right.items():
            wrong = self._wrong[problem]
            count = self.counts[problem] = min(len(right), len(wrong))
            for index in wrong[:count]:
                reasons[index] = ""
            for index in right[count:]:
                reasons[index] = "unpaired"
        return reasons


def pair_order(selections: Iterable[Selection]) -> list[int]:
    """Indices of selections, the two of a pair next to each other, the right one first.

    Args:
        selections: Those of samples that are trained on.

    Raises:
        ValueError: if one has no partner.
    """
    right, wrong = collections.defaultdict(list), collections.defaultdict(list)
    for index, selection in enumerate(selections):
        side = wrong if selection.is_wrong else right
        side[selection.iteration, selection.problem].append(index)
    if {k: len(v) for k, v in right.items()} != {k: len(v) for k, v in wrong.items()}:
        raise ValueError(
            "Expected as many right as wrong completions of each problem in "
            "selection.jsonl. It is of a run with another objective."
        )
    return [
        index
        for key, indices in right.items()
        for pair in zip(indices, wrong[key], strict=True)
        for index in pair
    ]
