"""Everything that was sampled, why it was kept or not, and its file."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from star_keras.grading import Verdict
from star_keras.json_lines import read_json_lines, replace_json_lines, write_json_lines

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
        write_json_lines(
            self.path(iteration), map(dataclasses.asdict, rationales), mode="a"
        )

    def load(self, iteration: int) -> list[Rationale]:
        """All rationales of an iteration, in the order they were sampled.

        Raises:
            ValueError: if a line is malformed; names the file and the line.
        """
        path = self.path(iteration)
        return [
            Rationale(**record)
            for record in read_json_lines(
                path, {f.name for f in dataclasses.fields(Rationale)}, exactly=True
            )
        ]

    def drop(self, iteration: int, kind: PromptKind):
        """Forget an iteration's rationales of one kind."""
        found = self.load(iteration)
        kept = [r for r in found if r.prompt_kind != kind]
        if len(kept) < len(found):
            replace_json_lines(self.path(iteration), map(dataclasses.asdict, kept))
