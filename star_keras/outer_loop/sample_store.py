"""Files of samples: a journal while a phase samples, then one that never changes."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence

from etils import epath

from star_keras.outer_loop.finished_files import FinishedFiles
from star_keras.outer_loop.records import GradedSample, SampleKind, Selection
from star_keras.utils.json_lines import (
    append_json_lines,
    json_line_bytes,
    parse_json_object,
    whole_lines,
)
from star_keras.utils.records import is_count, make_record


class SampleStore:
    """The samples of a run and the decisions on them, a directory an iteration.

    - `iteration_0001/<kind>.jsonl`: the graded samples of a finished phase in
      canonical order, problem by problem. Appears whole and never changes.
    - `iteration_0001/<kind>.journal.jsonl`: the graded samples so far of a
      phase under way, in the order in which they were finished.
    - `iteration_0001/selection.jsonl`: a `Selection` for each sample of the
      iteration, then for earlier samples that are trained on again.
    - `iteration_0001/mastery.json`: see `star_keras.outer_loop.mastery`.

    Args:
        directory: Where the files go, local or `gs://`.
        writes: Whether this process writes. The others only read.
        first_rerun: Callable `iteration -> iteration`: from where a run can start
            again if a file of an iteration is damaged. Defaults to the same one.

    Attributes:
        finished: The `FinishedFiles`: all but the journals.
    """

    def __init__(
        self,
        directory,
        writes: bool = True,
        first_rerun: Callable[[int], int] = lambda iteration: iteration,
    ):
        self.writes = writes
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

    def load(self, iteration: int, kind: SampleKind) -> list[GradedSample] | None:
        """The samples of a finished phase; `None` if it is not finished.

        Raises:
            ValueError: if the file was changed, or a line is malformed or of another
                phase; names the file and the line.
        """
        name = f"{kind}.jsonl"
        if not self.finished.exists(iteration, name):
            return None

        def check(path, samples):
            _check_samples(path, samples, iteration, kind)

        return self._read(iteration, name, GradedSample, check)

    def load_journal(self, iteration: int, kind: SampleKind) -> list[GradedSample]:
        """The samples so far of a phase under way.

        Raises:
            ValueError: if a line is malformed or of another phase; names the file
                and the line. A truncated last line is ignored.
        """
        path = self.journal_path(iteration, kind)
        if not path.exists():
            return []
        try:
            samples = _records(path, path.read_bytes(), GradedSample)
            _check_samples(path, samples, iteration, kind)
        except ValueError as error:
            raise ValueError(
                f"{error} Put the file back, or remove it to sample again."
            ) from None
        return samples

    def append(self, iteration: int, kind: SampleKind, samples: Iterable[GradedSample]):
        """Add samples to the journal; they survive a kill from then on.

        Raises:
            OSError: if the file cannot be written; names it.
        """
        if self.writes:
            path = self.journal_path(iteration, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            append_json_lines(path, map(dataclasses.asdict, samples))

    def finish(self, iteration: int, kind: SampleKind, samples: Iterable[GradedSample]):
        """Write the file of a finished phase, and remove its journal.

        An existing file stays. A journal left by a kill is removed.

        Args:
            iteration: Their iteration.
            kind: Their kind.
            samples: All samples of the phase in canonical order.
        """
        if self.writes and not self.path(iteration, kind).exists():
            content = json_line_bytes(map(dataclasses.asdict, samples))
            self.finished.write(iteration, f"{kind}.jsonl", content)
        if self.writes:
            self.journal_path(iteration, kind).unlink(missing_ok=True)

    # === Decisions ===

    def finish_selection(self, iteration: int, selections: Sequence[Selection]):
        """Write the decisions on the samples of an iteration.

        Raises:
            ValueError: if the file exists and holds something else.
        """
        if self.writes:
            content = json_line_bytes(map(dataclasses.asdict, selections))
            self.finished.write(iteration, "selection.jsonl", content)

    def load_selection(self, iteration: int) -> list[Selection]:
        """All decisions of a finished iteration.

        Raises:
            ValueError: if the file is missing or was changed, or a line is
                malformed; names the file and the line.
        """
        return self._read(iteration, "selection.jsonl", Selection)

    def load_kept(self, iteration: int) -> list[tuple[GradedSample, Selection]]:
        """The own samples of a finished iteration that it was trained on.

        Raises:
            ValueError: if a file is missing or does not fit the others.
        """
        selections = [
            selection
            for selection in self.load_selection(iteration)
            if selection.iteration == iteration and selection.weight
        ]
        samples = {
            sample.key: sample
            for kind in sorted({selection.kind for selection in selections})
            for sample in self.load(iteration, kind) or ()
        }
        for selection in selections:
            if selection.key not in samples:
                name = f"{selection.kind}.jsonl"
                fault = (
                    f"lacks sample {selection.sample} of problem "
                    f"{selection.problem!r}, which selection.jsonl selects"
                )
                raise self.finished.damaged(iteration, name, fault)
        return [(samples[selection.key], selection) for selection in selections]

    # === Mastery ===

    def finish_mastery(self, iteration: int, mastery: dict):
        """Write the mastery of the problems after an iteration, JSON.

        Raises:
            ValueError: if the file exists and holds something else.
        """
        if self.writes:
            content = (json.dumps(mastery) + "\n").encode()
            self.finished.write(iteration, "mastery.json", content)

    def load_mastery(self, iteration: int) -> dict:
        """What `finish_mastery` has written; empty before the first iteration.

        Raises:
            ValueError: if the file is missing, damaged or was changed.
        """
        if iteration < 1:
            return {}
        content = self.finished.read(iteration, "mastery.json")
        path = self.finished.path(iteration, "mastery.json")
        try:
            mastery = parse_json_object(content, str(path))
            for problem, pair in mastery.items():
                is_pair = isinstance(pair, list) and len(pair) == 2
                if not is_pair or not all(map(is_count, pair)):
                    raise ValueError(f"{problem!r} has {pair!r}, expected two counts")
        except ValueError as error:
            fault = f"is damaged ({error})"
            raise self.finished.damaged(iteration, path.name, fault) from None
        return mastery

    def _read(self, iteration, name, cls, check=lambda path, records: None):
        """The records of a finished file."""
        content = self.finished.read(iteration, name)
        path = self.finished.path(iteration, name)
        try:
            if content and not content.endswith(b"\n"):
                raise ValueError("its last line is cut short")
            records = _records(path, content, cls)
            check(path, records)
        except ValueError as error:
            fault = f"is damaged ({error})"
            raise self.finished.damaged(iteration, name, fault) from None
        return records


def _records(path, content, cls):
    name = str(path)
    records = []
    for number, line in enumerate(whole_lines(content), start=1):
        where = f"{name}, line {number}"
        records.append(make_record(cls, parse_json_object(line, where), where))
    return records


def _check_samples(path, samples, iteration, kind):
    """Check that samples are of this phase, each once."""
    seen = set()
    for number, sample in enumerate(samples, start=1):
        if (sample.iteration, sample.kind) != (iteration, kind) or sample.key in seen:
            fault = "twice" if sample.key in seen else "in the file of another phase"
            raise ValueError(
                f"{path}, line {number}: {sample.kind} {sample.sample} of problem "
                f"{sample.problem!r}, iteration {sample.iteration}, is {fault}."
            )
        seen.add(sample.key)
