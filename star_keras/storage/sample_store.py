"""Files of samples: a journal while a phase samples, then one that never changes."""

import array
import json
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from etils import epath

from star_keras.storage.finished_files import FinishedFiles
from star_keras.storage.records import GradedSample, SampleKind, Selection
from star_keras.storage.stored_samples import KeptSamples, StoredSamples, interned
from star_keras.utils.json_lines import (
    append_json_lines,
    json_lines,
    parse_json_object,
)
from star_keras.utils.records import is_count, is_share, make_record

# Of files with two numbers of each problem: their rule, and whether the second fits.
_PAIRS = {
    "mastery": ("two counts", is_count),
    "order": ("a count and a share from 0 to 1", is_share),
}


class SampleStore:
    """The samples of a run and the decisions on them, a directory an iteration.

    - `iteration_0001/<kind>.jsonl`: the graded samples of a finished phase in
      canonical order, problem by problem. Appears whole and never changes.
    - `iteration_0001/<kind>.journal.jsonl`: the graded samples so far of a
      phase under way, in the order in which they were finished.
    - `iteration_0001/selection.jsonl`: a `Selection` for each sample of the
      iteration, then for earlier samples that are trained on again.
    - `iteration_0001/mastery.json`: see `star_keras.outer_loop.mastery`.
    - `iteration_0001/order.json`: see `star_keras.outer_loop.problem_order`.

    Args:
        directory: Where the files go, local or `gs://`.
        writes: Whether this process writes. The others only read.
        first_rerun: Callable `iteration -> iteration`: the one to start again from if a
            file of an iteration is damaged. Defaults to the same one.
        check: Called before a write; raises if the directory is no longer this run's.

    Attributes:
        finished: The `FinishedFiles`: all but the journals.
    """

    def __init__(
        self,
        directory,
        writes: bool = True,
        first_rerun: Callable[[int], int] = lambda iteration: iteration,
        check: Callable[[], None] = lambda: None,
    ):
        self.writes = writes
        self._check = check
        self.finished = FinishedFiles(directory, first_rerun)

    @property
    def directory(self) -> epath.Path:
        """Where the files are."""
        return self.finished.directory

    def iteration_directory(self, iteration: int) -> epath.Path:
        """Where the files of an iteration are."""
        return self.finished.path(iteration)

    # === Samples ===

    def path(self, iteration: int, kind: SampleKind) -> epath.Path:
        """The file of a finished phase."""
        return self.iteration_directory(iteration) / f"{kind}.jsonl"

    def journal_path(self, iteration: int, kind: SampleKind) -> epath.Path:
        """The journal of a phase under way."""
        return self.iteration_directory(iteration) / f"{kind}.journal.jsonl"

    def load(self, iteration: int, kind: SampleKind) -> StoredSamples | None:
        """The samples of a finished phase; `None` if it is not finished.

        Raises:
            ValueError: if the file was changed, or a line is malformed or of another
                phase; names the file and the line.
        """
        name = f"{kind}.jsonl"
        if not self.finished.exists(iteration, name):
            return None
        path = self.finished.checked_path(iteration, name)
        try:
            return _read_samples(path, iteration, kind)
        except ValueError as error:
            fault = f"is damaged ({error})"
            raise self.finished.damaged(iteration, name, fault) from None

    def load_journal(self, iteration: int, kind: SampleKind) -> StoredSamples:
        """The samples so far of a phase under way.

        Raises:
            ValueError: if a line is malformed or of another phase; names the file
                and the line. A truncated last line is ignored.
        """
        path = self.journal_path(iteration, kind)
        try:
            return _read_samples(path, iteration, kind, is_journal=True)
        except ValueError as error:
            raise ValueError(
                f"{error} Put the file back, or remove it to sample again."
            ) from None

    def append(self, iteration: int, kind: SampleKind, samples: Iterable[GradedSample]):
        """Add samples to the journal; they survive a kill from then on.

        Raises:
            OSError: if the file cannot be written; names it.
            RuntimeError: if the directory is no longer this run's.
        """
        if self.writes:
            self._check()
            path = self.journal_path(iteration, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            append_json_lines(path, map(_values, samples))

    def finish(
        self,
        iteration: int,
        kind: SampleKind,
        samples: Iterable[GradedSample],
        keep_journal: bool = False,
    ):
        """Write the file of a finished phase, and remove its journal.

        An existing file stays. A journal left by a kill is removed.

        Args:
            iteration: Their iteration.
            kind: Their kind.
            samples: All samples of the phase in canonical order.
            keep_journal: Whether the journal stays for now.

        Raises:
            OSError: if the file cannot be written; names it.
            RuntimeError: if the directory is no longer this run's.
        """
        if self.writes:
            self._check()
            if not self.path(iteration, kind).exists():
                self.finished.write(iteration, f"{kind}.jsonl", _lines(samples))
            if not keep_journal:
                self.journal_path(iteration, kind).unlink(missing_ok=True)

    # === Decisions ===

    def finish_selection(self, iteration: int, selections: Iterable[Selection]):
        """Write the decisions on the samples of an iteration.

        Raises:
            ValueError: if the file exists and holds something else.
        """
        if self.writes:
            self._check()
            self.finished.write(iteration, "selection.jsonl", _lines(selections))

    def load_selection(self, iteration: int) -> list[Selection]:
        """All decisions of a finished iteration.

        Raises:
            ValueError: if the file is missing or was changed, or a line is
                malformed; names the file and the line.
        """
        name = "selection.jsonl"
        path = self.finished.checked_path(iteration, name)
        try:
            return [selection for selection, _ in _records(path, Selection)]
        except ValueError as error:
            fault = f"is damaged ({error})"
            raise self.finished.damaged(iteration, name, fault) from None

    def load_kept(self, iteration: int) -> KeptSamples:
        """The own samples of a finished iteration that it was trained on.

        Raises:
            ValueError: if a file is missing or does not fit the others.
        """
        chosen: dict[SampleKind, list[Selection]] = {}
        for selection in self.load_selection(iteration):
            if selection.iteration == iteration and selection.weight:
                chosen.setdefault(selection.kind, []).append(selection)
        parts = []
        for kind, selections in chosen.items():
            samples = self.load(iteration, kind) or ()
            # Both files have the same order.
            rest = enumerate(samples)
            indices = []
            for selection in selections:
                index = next((i for i, s in rest if s.key == selection.key), None)
                if index is None:
                    fault = (
                        f"lacks sample {selection.sample} of problem "
                        f"{selection.problem!r}, which selection.jsonl selects, or "
                        "has another order"
                    )
                    raise self.finished.damaged(iteration, f"{kind}.jsonl", fault)
                indices.append(index)
            parts.append((samples, indices, selections))
        return KeptSamples(parts)

    # === Mastery and order ===

    def finish_pairs(self, iteration: int, name: str, pairs: dict):
        """Write two numbers of each problem after an iteration, JSON.

        Args:
            iteration: The iteration.
            name: `"mastery"` or `"order"`, see the modules of these files.
            pairs: The numbers by the id of the problem.

        Raises:
            ValueError: if the file exists and holds something else.
        """
        if self.writes:
            self._check()
            content = (json.dumps(pairs) + "\n").encode()
            self.finished.write(iteration, f"{name}.json", [content])

    def load_pairs(self, iteration: int, name: str) -> dict:
        """What `finish_pairs` has written; empty before the first iteration.

        Raises:
            ValueError: if the file is missing, damaged or was changed.
        """
        if iteration < 1:
            return {}
        path = self.finished.checked_path(iteration, f"{name}.json")
        rule, fits_second = _PAIRS[name]
        try:
            pairs = parse_json_object(path.read_bytes(), str(path))
            for problem, pair in pairs.items():
                is_pair = isinstance(pair, list) and len(pair) == 2
                if not (is_pair and is_count(pair[0]) and fits_second(pair[1])):
                    raise ValueError(f"{problem!r} has {pair!r}, expected {rule}")
        except ValueError as error:
            fault = f"is damaged ({error})"
            raise self.finished.damaged(iteration, path.name, fault) from None
        return pairs


def _lines(records):
    return json_lines(map(_values, records))


def _values(record):
    """The fields by name. `dataclasses.asdict` would copy each value, which is slow."""
    return {name: getattr(record, name) for name in record.__slots__}


def _records(path, cls, is_journal=False) -> Iterator[tuple]:
    """The records of a file, each with the place where its line ends."""
    name, end = str(path), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                if is_journal:
                    return
                raise ValueError("its last line is cut short")
            end += len(line)
            where = f"{name}, line {number}"
            values = parse_json_object(line, where)
            yield make_record(cls, interned(values), where), end


def _read_samples(path, iteration, kind, is_journal=False):
    """The samples of a file, all of this phase, each once."""
    ends = array.array("q", [0])
    seen: dict[tuple[str, int], int] = {}  # a bit for each sample of a problem
    records = ()
    if path.exists() or not is_journal:
        records = _records(path, GradedSample, is_journal)
    for number, (sample, end) in enumerate(records, start=1):
        group, bit = (sample.problem, sample.sample // 1024), 1 << sample.sample % 1024
        is_twice = bool(seen.get(group, 0) & bit)
        if (sample.iteration, sample.kind) != (iteration, kind) or is_twice:
            fault = "twice" if is_twice else "in the file of another phase"
            raise ValueError(
                f"{path}, line {number}: {sample.kind} {sample.sample} of problem "
                f"{sample.problem!r}, iteration {sample.iteration}, is {fault}."
            )
        seen[group] = seen.get(group, 0) | bit
        ends.append(end)
    return StoredSamples(path, np.asarray(ends))
