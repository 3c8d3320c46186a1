"""Everything that was sampled, why it was kept or not, and its file."""

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from star_keras.grading import Verdict

PromptKind = Literal["rationale", "rationalization", "evaluation", "direct"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rationale:
    """One sampled completion with its verdict; a line of a samples file.

    Attributes:
        iteration: Iteration of the outer loop; 0 is the base model.
        problem: Id of the problem.
        problem_class: Class of the problem.
        sample: Number of the sample for this problem, from 0.
        prompt_kind: `"rationale"` for a training problem without a hint,
            `"rationalization"` with one, `"evaluation"` for a held-out
            problem, `"direct"` for a known answer that was not sampled.
        completion: What the model wrote, up to its stop.
        answer: The answer read from it, or `None`.
        verdict: See `star_keras.grading.grade`.
        weight: Weight of its tokens in training; 0 is not trained on.
        show_hint: Whether it is trained on with the hint in its prompt.
    """

    iteration: int
    problem: str
    problem_class: str
    sample: int
    prompt_kind: PromptKind
    completion: str
    answer: str | None
    verdict: Verdict
    weight: float
    show_hint: bool = False

    @property
    def key(self):
        """What names a sample within its iteration."""
        return self.prompt_kind, self.problem, self.sample


class RationaleStore:
    """JSON-lines files of rationales, one an iteration.

    What `append` has returned from survives a kill. A last line that a kill
    cut short is dropped at the next `load`; any other malformed line is an
    error.

    Args:
        directory: Where the files go; made if needed.
    """

    def __init__(self, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, iteration: int) -> Path:
        return self.directory / f"iteration_{iteration:04d}.jsonl"

    def append(self, iteration: int, rationales: Iterable[Rationale]):
        write_json_lines(self.path(iteration), rationales, mode="a")

    def load(self, iteration: int) -> list[Rationale]:
        """All rationales of an iteration, in the order they were sampled.

        Raises:
            ValueError: if a line is malformed; names the file and the line.
        """
        path = self.path(iteration)
        return [
            Rationale(**record)
            for record in read_json_lines(
                path, {f.name for f in dataclasses.fields(Rationale)}
            )
        ]


def write_json_lines(path: Path, rationales: Iterable[Rationale], mode: str = "w"):
    """Write rationales as JSON lines, and wait until they are on disk."""
    lines = "".join(
        json.dumps(dataclasses.asdict(r), ensure_ascii=False) + "\n" for r in rationales
    )
    with path.open(mode, encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: Path, fields: set[str]) -> list[dict]:
    """Read a JSON-lines file that this package appends to.

    Args:
        path: The file. One that does not exist has no lines.
        fields: The names that each line must have, at least.

    Raises:
        ValueError: if a line is not a JSON object with these fields. A last
            line without its newline is what a kill left behind: it is cut off
            the file instead.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)
    records = []
    for number, line in enumerate(content[:end].splitlines(), start=1):
        records.append(parse_json_line(line, fields, path, number))
    return records


def parse_json_line(line, fields: set[str], path, number: int) -> dict:
    """Parse one line that must be a JSON object with certain fields.

    Raises:
        ValueError: naming the file, the line and what is wrong with it.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not valid JSON ({error}).") from None
    if not isinstance(record, dict):
        raise ValueError(
            f"{path}, line {number}: expected a JSON object. Received: {record!r}."
        )
    missing = sorted(fields - record.keys())
    if missing:
        raise ValueError(
            f"{path}, line {number}: missing {', '.join(map(repr, missing))}. "
            f"Expected the fields {sorted(fields)}. Received: {sorted(record)}."
        )
    return record
