"""Everything that was sampled, why it was kept or not, and its file."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from etils import epath

from star_keras.grading import Verdict, mean
from star_keras.json_lines import (
    append_json_lines,
    read_json_lines,
    write_json_lines,
)
from star_keras.tasks import Problem, Task

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
        finish_reason: `"length"` if it was cut off before its stop, else
            `"stop"`.
        answer: The answer read from it, or `None`.
        verdict: See `star_keras.grading.grade`.
        weight: Weight of its tokens in training; 0 is not trained on.
        show_hint: Whether it is trained on with the hint in its prompt.
        filtered: Why a correct one is not trained on: `"duplicate"` of another
            of its problem, or `"cap"` if the problem has enough.
    """

    iteration: int
    problem: str
    problem_class: str
    sample: int
    prompt_kind: PromptKind
    completion: str
    finish_reason: Literal["stop", "length"]
    answer: str | None
    verdict: Verdict
    weight: float
    show_hint: bool = False
    filtered: Literal["", "duplicate", "cap"] = ""

    @property
    def key(self):
        """What names a sample within its iteration."""
        return self.prompt_kind, self.problem, self.sample


def filter_and_weigh(
    rationales: Iterable[Rationale],
    *,
    key: Callable[[str], str] | None = None,
    max_per_problem: int | None = None,
    weigh_by_problem: bool = False,
) -> list[Rationale]:
    """Decide which correct rationales of an iteration are trained on, and how.

    Args:
        rationales: The graded ones, each problem's in the order of preference.
        key: Function of a completion. Of a problem's rationales with the same
            key only the first is trained on.
        max_per_problem: How many of a problem's are trained on.
        weigh_by_problem: Whether a problem's rationales weigh 1 together
            instead of 1 each.

    Returns:
        The same rationales with their `weight` and `filtered`.
    """
    seen: set[tuple[str, str]] = set()
    kept: collections.Counter[str] = collections.Counter()
    reasons = []
    rationales = list(rationales)
    for rationale in rationales:
        reason = ""
        if rationale.verdict == "correct":
            name = (rationale.problem, key(rationale.completion) if key else "")
            if key and name in seen:
                reason = "duplicate"
            elif max_per_problem and kept[rationale.problem] >= max_per_problem:
                reason = "cap"
            else:
                seen.add(name)
                kept[rationale.problem] += 1
        reasons.append(reason)
    weighed = []
    for rationale, reason in zip(rationales, reasons, strict=True):
        trained = rationale.verdict == "correct" and not reason
        share = kept[rationale.problem] if weigh_by_problem else 1
        weighed.append(
            dataclasses.replace(
                rationale, weight=1 / share if trained else 0.0, filtered=reason
            )
        )
    return weighed


def flexible_accuracy(
    task: Task, problems: Iterable[Problem], rationales: Iterable[Rationale]
) -> float:
    """Share of rationales that the task's flexible reading finds correct.

    Args:
        task: The task.
        problems: Those that the rationales are of, or more.
        rationales: What is read. NaN without any.
    """
    by_id = {problem.id: problem for problem in problems}
    right = []
    for rationale in rationales:
        answer = task.extract_answer_flexible(rationale.completion)
        problem = by_id[rationale.problem]
        right.append(answer is not None and task.is_correct(answer, problem))
    return mean(right)


def shares_unread(rationales: Sequence[Rationale]) -> dict[str, float]:
    """Shares of completions that cannot be read, or not to their end.

    Returns:
        `unparsed`, without an answer that could be read, and `truncated`, cut
        off before their stop; NaN without any rationale.
    """
    return {
        "unparsed": mean([r.verdict == "unparsed" for r in rationales]),
        "truncated": mean([r.finish_reason == "length" for r in rationales]),
    }


class RationaleStore:
    """JSON-lines files of rationales, one an iteration.

    What `append` has returned from survives a kill. A last line that a kill
    cut short does not count; any other malformed line is an error.

    Args:
        directory: Where the files go, local or `gs://`; made if needed.
        writes: Whether this process is the one that writes.
    """

    def __init__(self, directory, writes: bool = True):
        self.directory = epath.Path(directory)
        self.writes = writes
        if writes:
            self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, iteration: int) -> epath.Path:
        return self.directory / f"iteration_{iteration:04d}.jsonl"

    def append(self, iteration: int, rationales: Iterable[Rationale]):
        if self.writes:
            append_json_lines(self.path(iteration), map(dataclasses.asdict, rationales))

    def load(self, iteration: int) -> list[Rationale]:
        """All rationales of an iteration, in the order of the file.

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

    def replace(self, iteration: int, rationales: Iterable[Rationale]):
        """Let a file hold these rationales, in this order."""
        rationales = list(rationales)
        if self.writes and rationales != self.load(iteration):
            write_json_lines(self.path(iteration), map(dataclasses.asdict, rationales))
