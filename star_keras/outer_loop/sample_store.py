"""Files of samples: a journal while a phase samples, then one that never changes."""

import dataclasses
import json
from collections.abc import Iterable, Sequence

from etils import epath

from star_keras.outer_loop.records import GradedSample, SampleKind, Selection
from star_keras.outer_loop.run_checkpoints import iteration_name
from star_keras.utils import files
from star_keras.utils.json_lines import (
    append_json_lines,
    json_line_bytes,
    read_json_lines,
)


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
    """

    def __init__(self, directory, writes: bool = True):
        self.directory = epath.Path(directory)
        self.writes = writes

    def iteration_directory(self, iteration: int) -> epath.Path:
        """Where the files of an iteration are."""
        return self.directory / iteration_name(iteration)

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
            ValueError: if a line is malformed; names the file and the line.
        """
        path = self.path(iteration, kind)
        return _read(path, GradedSample) if path.exists() else None

    def load_journal(self, iteration: int, kind: SampleKind) -> list[GradedSample]:
        """The samples so far of a phase under way.

        Raises:
            ValueError: if a line is malformed; names the file and the line. A
                truncated last line is ignored.
        """
        return _read(self.journal_path(iteration, kind), GradedSample)

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
        path = self.path(iteration, kind)
        if self.writes and not path.exists():
            _write(path, samples)
        if self.writes:
            self.journal_path(iteration, kind).unlink(missing_ok=True)

    # === Decisions ===

    def finish_selection(self, iteration: int, selections: Sequence[Selection]):
        """Write the decisions on the samples of an iteration.

        Raises:
            ValueError: if the file exists and holds something else.
        """
        path = self.iteration_directory(iteration) / "selection.jsonl"
        self._write_once(path, json_line_bytes(map(dataclasses.asdict, selections)))

    def load_kept(self, iteration: int) -> list[tuple[GradedSample, Selection]]:
        """The own samples of a finished iteration that it was trained on.

        Raises:
            ValueError: if a file is missing or does not fit the others.
        """
        path = self.iteration_directory(iteration) / "selection.jsonl"
        if not path.exists():
            raise _missing(path, iteration)
        selections = [
            selection
            for selection in _read(path, Selection)
            if selection.iteration == iteration and selection.weight
        ]
        samples = {
            sample.key: sample
            for kind in sorted({selection.kind for selection in selections})
            for sample in self.load(iteration, kind) or ()
        }
        for selection in selections:
            if selection.key not in samples:
                raise ValueError(
                    f"{path} selects sample {selection.sample} of problem "
                    f"{selection.problem!r}, which is not in "
                    f"{self.path(iteration, selection.kind)}. Put the file back, "
                    "or run the iteration again with "
                    f"--start_iter={iteration}."
                )
        return [(samples[selection.key], selection) for selection in selections]

    # === Mastery ===

    def finish_mastery(self, iteration: int, mastery: dict):
        """Write the mastery of the problems after an iteration, JSON.

        Raises:
            ValueError: if the file exists and holds something else.
        """
        path = self.iteration_directory(iteration) / "mastery.json"
        self._write_once(path, (json.dumps(mastery) + "\n").encode())

    def load_mastery(self, iteration: int) -> dict:
        """What `finish_mastery` has written; empty before the first iteration.

        Raises:
            ValueError: if the file is missing.
        """
        if iteration < 1:
            return {}
        path = self.iteration_directory(iteration) / "mastery.json"
        if not path.exists():
            raise _missing(path, iteration)
        return json.loads(path.read_text())

    def _write_once(self, path, content):
        if not self.writes:
            return
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, content)
        elif path.read_bytes() != content:
            raise ValueError(
                f"The file {path} was changed: this run would write something else. "
                "Put it back, or remove it to have it written again."
            )


def _missing(path, iteration):
    return ValueError(
        f"The file {path} is missing. Put it back, or run the iteration again with "
        f"--start_iter={iteration}."
    )


def _read(path, cls):
    names = {field.name for field in dataclasses.fields(cls)}
    return [cls(**record) for record in read_json_lines(path, names, exactly=True)]


def _write(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, json_line_bytes(map(dataclasses.asdict, samples)))
