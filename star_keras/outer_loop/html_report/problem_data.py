"""The problems and samples of runs in a page: compressed, in chunks.

A page of 100,000 samples shows one sample at a time and filters all of them at once.
For the filters, the numbers of the samples are columns. The texts are rows of JSON in
chunks; the page decompresses a chunk to show one of its rows.
"""

import array
import base64
import collections
import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from star_keras.storage.run_files import RunFiles, count, text

# Characters of JSON in a chunk; a longer row is a chunk of its own.
_CHUNK = 128 * 1024
_COLUMNS = {
    # Rows `[id]`.
    "problems": ("split", "class"),
    # Rows `[question, answer, prompt, hinted prompt or null]`.
    "texts": ("run", "problem"),
    # Rows `[completion, answer or null]`.
    "samples": (
        *("run", "problem", "iteration", "kind", "sample", "verdict"),
        *("tokens", "truncated", "reason", "weight", "show_hint", "is_wrong"),
    ),
    # No rows: earlier samples that an iteration was trained on.
    "again": ("run", "problem", "sampled", "kind", "sample", "iteration", "weight"),
}
# Values of these columns are numbers of names.
_NAMED = ("split", "class", "kind", "verdict", "reason")
# The `weight` of a sample without a decision.
UNDECIDED = -1


class ProblemData:
    """Collects the problems and samples of runs; texts go to a file at once.

    Args:
        scratch: An empty binary file to write to, read and seek.
        share: Share of the problems to show, each with all of its samples. The choice
            of problems is the same for all runs and at all times.

    Attributes:
        counts: Numbers of `"samples"` and `"tokens"` of all problems, by run,
            iteration and kind.
    """

    def __init__(self, scratch: BinaryIO, share: float = 1.0):
        self._scratch = scratch
        self._share = share
        self._names = {name: {} for name in _NAMED}
        self._columns = {
            stream: {n: array.array("f" if n == "weight" else "i") for n in names}
            for stream, names in _COLUMNS.items()
        }
        self._firsts = {stream: [] for stream in _COLUMNS}
        self._rows = {stream: [] for stream in _COLUMNS}
        self._lengths = collections.Counter()
        self._problems: dict[tuple[str, str], int] = {}  # by split and id
        self.counts: dict[tuple[int, int, str], collections.Counter] = (
            collections.defaultdict(collections.Counter)
        )

    def add_run(self, number: int, run: RunFiles):
        """Add the problems and samples of a run.

        Args:
            number: Number of the run, from 0.
            run: Files of the run.

        Raises:
            OSError: if the scratch file cannot be written.
        """
        for iteration, samples, trained_again in run.iterations():
            for kind, sample, decision in samples:
                self._add_sample(number, iteration, kind, sample, decision or {})
            for decision in trained_again:
                problem = self._problems.get(("train", decision["problem"]))
                if problem is not None:
                    self._add_numbers(
                        "again",
                        run=number,
                        problem=problem,
                        sampled=count(decision, "iteration"),
                        kind=decision["kind"],
                        sample=count(decision, "sample"),
                        iteration=iteration,
                        weight=_weight(decision),
                    )
        for line in run.problems():
            problem = self._problems.get((line["split"], line["problem"]))
            if problem is not None:
                row = [text(line, name) for name in ("question", "answer", "prompt")]
                row.append(text(line, "hinted_prompt") or None)
                self._add("texts", row, run=number, problem=problem)

    def _add_sample(self, number, iteration, kind, sample, decision):
        verdict, tokens = text(sample, "verdict"), count(sample, "num_tokens")
        counts = self.counts[number, iteration, kind]
        counts["samples"] += 1
        counts["tokens"] += tokens
        key = "eval" if kind == "evaluation" else "train", sample["problem"]
        if not self._is_shown(*key):
            return
        problem = self._problems.setdefault(key, len(self._problems))
        if problem == len(self._columns["problems"]["split"]):
            values = {"split": key[0], "class": text(sample, "problem_class")}
            self._add("problems", [key[1]], **values)
        self._add(
            "samples",
            [sample["completion"], text(sample, "answer") or None],
            run=number,
            problem=problem,
            iteration=iteration,
            kind=kind,
            sample=count(sample, "sample"),
            verdict=verdict,
            tokens=tokens,
            truncated=sample.get("finish_reason") == "length",
            reason=text(decision, "reason"),
            weight=_weight(decision),
            show_hint=decision.get("show_hint") is True,
            is_wrong=decision.get("is_wrong") is True,
        )

    def index(self) -> dict:
        """Names of the numbers in columns, first rows of the chunks, and lengths.

        All runs must have been added.
        """
        for stream in _COLUMNS:
            self._write_chunk(stream)
        return {
            "names": {name: list(found) for name, found in self._names.items()},
            "firsts": self._firsts,
            "lengths": {
                k: len(next(iter(c.values()))) for k, c in self._columns.items()
            },
        }

    def columns(self) -> Iterator[tuple[str, str, str, str]]:
        """`(stream, name, type, data)` of all columns.

        The type is `"Int32Array"` or `"Float32Array"`, the data its little-endian
        bytes, gzip, base64.
        """
        for stream, columns in self._columns.items():
            for name, values in columns.items():
                kind, code = (
                    ("Float32", "<f4") if name == "weight" else ("Int32", "<i4")
                )
                content = np.asarray(values, code).tobytes()
                yield stream, name, f"{kind}Array", _packed(content)

    def chunks(self) -> Iterator[tuple[str, str]]:
        """`(stream, data)` of all chunks, the data JSON, gzip, base64."""
        self._scratch.seek(0)
        for line in self._scratch:
            stream, data = line.decode("ascii").split()
            yield stream, data

    def _is_shown(self, split, name):
        if self._share >= 1:
            return True
        digest = hashlib.blake2b(f"{split} {name}".encode(), digest_size=4).digest()
        return int.from_bytes(digest) < self._share * 2**32

    def _add(self, stream, row, **values):
        self._add_numbers(stream, **values)
        # ASCII alone, so that every text can be written.
        content = json.dumps(row)
        self._rows[stream].append(content)
        self._lengths[stream] += len(content)
        if self._lengths[stream] >= _CHUNK:
            self._write_chunk(stream)

    def _add_numbers(self, stream, **values):
        for name, column in self._columns[stream].items():
            value = values[name]
            if name in _NAMED:
                value = self._names[name].setdefault(value, len(self._names[name]))
            column.append(value)

    def _write_chunk(self, stream):
        rows = self._rows[stream]
        if rows:
            length = len(next(iter(self._columns[stream].values())))
            self._firsts[stream].append(length - len(rows))
            data = _packed(f"[{','.join(rows)}]".encode("ascii"))
            self._scratch.write(f"{stream} {data}\n".encode("ascii"))
            self._rows[stream], self._lengths[stream] = [], 0


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode(
        "ascii"
    )


def _weight(decision):
    weight = decision.get("weight")
    is_weight = type(weight) in (int, float) and 0 <= weight <= 1
    return weight if is_weight else UNDECIDED
