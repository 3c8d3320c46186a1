"""The files of a run directory, read for reports. Damage is noted, not raised."""

import collections
from collections.abc import Iterator
from typing import get_args

from etils import epath

from star_keras.storage.finished_files import FinishedFiles
from star_keras.storage.iteration_names import iteration_directories
from star_keras.storage.manifest import (
    existing_run,
    metrics_of,
    read_beginning,
    read_manifest,
    recorded_files,
    trained_iterations,
)
from star_keras.storage.records import SampleKind
from star_keras.utils import files
from star_keras.utils.json_lines import parse_json_object, read_json_object

PROBLEMS_NAME, PROMPTS_NAME = "problems.jsonl", "prompts.json"
_KINDS = get_args(SampleKind)
_LARGEST = 2**31 - 1


class RunFiles:
    """A run directory, finished or under way. Nothing in it is changed.

    Unknown fields are ignored and missing fields have defaults, for runs of other
    versions.

    Args:
        path: The directory, local or `gs://`.

    Attributes:
        path: The directory.
        name: Name of the directory.
        config: The content of `config.json`, or `{}`.
        settings: The same by names like `"run.seed"`.
        prompts: The content of `prompts.json`, or `{}`.
        history: Metrics of each iteration and its number, without NaN; the last one
            may be under way.
        trained: The last trained iteration; 0 before the first.

    Raises:
        ValueError: if there is no such directory, or it is not that of a run.
    """

    def __init__(self, path):
        self.path = existing_run("run_dir", path)
        manifest = self.path / "manifest.jsonl"
        self.name = self.path.name
        self._first_faults: dict[str, str] = {}
        self._counts: collections.Counter[str] = collections.Counter()
        self.config = self._object("config.json")
        self.settings = dict(_flat("", self.config))
        self.prompts = self._object(PROMPTS_NAME)
        try:
            phases = read_manifest(manifest)
        except ValueError as error:
            self._note("manifest.jsonl", str(error))
            phases = read_beginning(manifest)
        self.trained = trained_iterations(phases)
        # (The remedy of a damaged file is told by the run and by its check.)
        self._finished = FinishedFiles(self.path / "samples", first_rerun=int)
        self._finished.recorded = recorded_files(phases)
        self.history = [
            {"iteration": iteration}
            | {k: v for k, v in metrics_of(phases, iteration).items() if v == v}
            for iteration in sorted({iteration for iteration, _ in phases})
        ]

    @property
    def faults(self) -> list[str]:
        """A sentence for each damaged file found so far."""
        return [
            fault + (f" And {more:,} more in this file." if more else "")
            for name, fault in self._first_faults.items()
            for more in [self._counts[name] - 1]
        ]

    def size(self) -> int:
        """Bytes of the files of samples."""
        paths = [
            directory / f"{kind}.jsonl"
            for directory in self._directories().values()
            for kind in _KINDS
        ]
        return sum(files.size(path) for path in paths if path.exists())

    def problems(self) -> Iterator[dict]:
        """The lines of `problems.jsonl`; none without the file."""
        path = self.path / PROBLEMS_NAME
        if not path.exists():
            self._note(
                PROBLEMS_NAME,
                f"{path} is missing: the report shows no questions and prompts. "
                "The run writes it at its next evaluation.",
            )
        elif not files.size(path):
            self._note(
                PROBLEMS_NAME,
                f"{path} is empty: the report shows no questions and prompts. Remove "
                "it: the run writes it at its next evaluation.",
            )
        yield from self._lines(path, ("split", "problem", "question"))

    def iterations(self) -> Iterator[tuple[int, Iterator, list[dict]]]:
        """The samples of each iteration, and the decisions on them.

        At the end, files that differ from their records in the manifest are noted.

        Yields:
            `(iteration, samples, trained_again)`. `samples` yields `(kind, sample,
            decision)` with the JSON of a `GradedSample` and of its `Selection`, `None`
            without one. `trained_again` has those of earlier iterations' samples.
        """
        for iteration, directory in self._directories().items():
            decisions, again = {}, []
            path = directory / "selection.jsonl"
            for line in self._lines(path, ("kind", "problem")):
                if count(line, "iteration") == iteration:
                    decisions[_key(line["kind"], line)] = line
                else:
                    again.append(line)
            yield iteration, self._samples(directory, decisions), again
        self._compare()

    def _compare(self):
        """Note the files that are not as the manifest records them."""
        for iteration, name in sorted(self._finished.recorded):
            path = self._finished.path(iteration, name)
            place = str(path.relative_to(self.path))
            if place not in self._first_faults:  # a damaged line says more
                try:
                    fault = self._finished.fault(iteration, name)
                except OSError as error:
                    fault = f"cannot be read ({error.strerror or error})"
                if fault is not None:
                    self._note(place, f"{path} {fault}.")

    def _samples(self, directory, decisions):
        for kind in _KINDS:
            path = directory / f"{kind}.jsonl"
            for sample in self._lines(path, ("problem", "completion")):
                yield kind, sample, decisions.get(_key(kind, sample))

    def _directories(self):
        return iteration_directories(self.path / "samples")

    def _lines(self, path: epath.Path, texts) -> Iterator[dict]:
        """The objects of a file of JSON lines whose fields `texts` are strings."""
        name, place = str(path.relative_to(self.path)), str(path)
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    where = f"{place}, line {number}"
                    try:
                        yield _record(line, texts, where)
                    except ValueError as error:
                        self._note(name, f"{error} The line is not shown.")
        except FileNotFoundError:
            return
        except OSError as error:
            self._note(name, f"{path} cannot be read ({error.strerror or error}).")

    def _object(self, name):
        path = self.path / name
        try:
            return read_json_object(path) if path.exists() else {}
        except ValueError as error:
            self._note(name, str(error))
            return {}

    def _note(self, name, text):
        """Keep the first fault of a file, and the number of its faults."""
        self._first_faults.setdefault(name, text)
        self._counts[name] += 1


def _flat(prefix, config):
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", value


def _key(kind, record):
    return kind, record["problem"], count(record, "sample")


def _record(line, texts, where):
    record = parse_json_object(line, where)
    wrong = [name for name in texts if not isinstance(record.get(name), str)]
    if wrong:
        raise ValueError(f"{where}: no text in {', '.join(wrong)}.")
    return record


def count(record: dict, name: str) -> int:
    """A field that is a count below 2**31; 0 for anything else."""
    value = record.get(name)
    return value if type(value) is int and 0 <= value <= _LARGEST else 0


def text(record: dict, name: str) -> str:
    """A field that is a text; `""` for anything else."""
    value = record.get(name)
    return value if isinstance(value, str) else ""
