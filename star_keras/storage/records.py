"""Records of samples: the graded sample, and the decision on it."""

import dataclasses
from typing import Literal, get_args

from star_keras.tasks.grading import Verdict
from star_keras.utils.errors import invalid

# In the order of the phases.
SampleKind = Literal["rationale", "direct", "rationalization", "evaluation"]

# The names of an iteration's files of finished phases.
FINISHED_NAMES = (
    *(f"{kind}.jsonl" for kind in get_args(SampleKind)),
    "selection.jsonl",
    "mastery.json",
    "order.json",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GradedSample:
    """One completion with its verdict; a line of a samples file.

    Attributes:
        iteration: Iteration of the outer loop; 0 is the base model.
        problem: Id of the problem.
        problem_class: Class of the problem.
        sample: Number of the sample of this problem, from 0.
        kind: `"rationale"` for a training problem without a hint,
            `"rationalization"` for one with a hint, `"direct"` for the known
            answer of a training problem, `"evaluation"` for a held-out
            problem.
        completion: The model's text up to its stop.
        num_tokens: Sampled tokens, the stop included.
        finish_reason: `"length"` if the completion was cut off before its
            stop, else `"stop"`.
        answer: The answer read from it, or `None`.
        verdict: See `star_keras.tasks.grading.Grade`.
        reason: Explanation of the verdict; empty for `"correct"`.
    """

    iteration: int
    problem: str
    problem_class: str
    sample: int
    kind: SampleKind
    completion: str
    num_tokens: int
    finish_reason: Literal["stop", "length"]
    answer: str | None
    verdict: Verdict
    reason: str = ""

    @property
    def key(self) -> tuple[int, str, str, int]:
        """Identifies the sample within a run."""
        return self.iteration, self.kind, self.problem, self.sample


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The decision on a sample; a line of a selection file.

    Attributes:
        iteration: Iteration that sampled it, an earlier one where a rationale
            is trained on again.
        kind: See `GradedSample`.
        problem: Id of the problem.
        sample: Number of the sample of this problem.
        weight: Weight of its response tokens in training; 0 if it is not
            trained on. From 0 to 1.
        show_hint: Whether its training prompt shows the hint.
        reason: Why it is not trained on: its verdict, `"false_equation"`,
            `"no_equation"` with the answer as its result, `"duplicate"` of another
            rationale of its problem, `"cap"` if the problem has enough,
            `"low_score"` by a verifier, `"outvoted"` by other answers,
            `"unpaired"`, or `"too_long"` for a row. Empty for a sample that is trained
            on.
        is_wrong: Whether it is the wrong completion of a pair. Of an iteration, the
            first wrong one of a problem and the first other one are a pair, and so on.

    Raises:
        ValueError: if the weight is out of its range, or a sample without weight
            has no reason, or one with weight has a reason.
    """

    iteration: int
    kind: SampleKind
    problem: str
    sample: int
    weight: float
    show_hint: bool = False
    reason: str = ""
    is_wrong: bool = False

    def __post_init__(self):
        if not 0 <= self.weight <= 1:
            raise invalid("weight", "a number from 0 to 1", self.weight)
        if bool(self.weight) == bool(self.reason):
            rule = "a reason for weight 0, and none for others"
            raise invalid("reason", rule, self.reason, f"The weight is {self.weight}.")

    @property
    def key(self) -> tuple[int, str, str, int]:
        """That of its `GradedSample`."""
        return self.iteration, self.kind, self.problem, self.sample
