"""Answers by vote: what most samples of a problem say, in place of its answer.

Reference:
    [Self-Consistency](https://arxiv.org/abs/2203.11171): the majority vote;
    [Large Language Models Can Self-Improve](https://arxiv.org/abs/2210.11610): training
    on the rationales that agree with it.
"""

import collections
from collections.abc import Iterable, Mapping

from star_keras.outer_loop.statistics import majority_vote, mean
from star_keras.storage.records import GradedSample
from star_keras.tasks.grading import fault_of
from star_keras.tasks.task import Problem, Task


class Votes:
    """The votes on each problem.

    Votes are texts of answers. Of equally frequent ones the first sample's wins.

    Args:
        samples: The samples of an iteration without a hint.

    Attributes:
        winners: By problem id the winning answer; `None` if no sample has an answer.
        agreement: By problem id the share of all its samples with this answer.
    """

    def __init__(self, samples: Iterable[GradedSample]):
        answers: dict[str, list[str | None]] = collections.defaultdict(list)
        for sample in samples:
            answers[sample.problem].append(sample.answer)
        self.winners: dict[str, str | None] = {}
        self.agreement: dict[str, float] = {}
        for name, group in answers.items():
            winner = self.winners[name] = majority_vote(group)
            votes = 0 if winner is None else group.count(winner)
            self.agreement[name] = votes / len(group)

    def fault(self, sample: GradedSample) -> str:
        """`"unparsed"` or `"outvoted"`; empty for a sample with the winning answer."""
        if sample.answer is None:
            return "unparsed"
        return "" if sample.answer == self.winners[sample.problem] else "outvoted"

    def metrics(self, task: Task, problems: Mapping[str, Problem]) -> dict[str, float]:
        """How good the votes are.

        Args:
            task: Compares answers.
            problems: The training problems by their ids, with the true answers that
                are known.

        Returns:
            `agreement`, its mean; and `majority_accuracy`, the share of the problems
            with a known answer whose winner it is. Left out if none is known.
        """
        metrics = {"agreement": mean(list(self.agreement.values()))}
        right = [
            winner is not None and not fault_of(task, winner, problems[name])
            for name, winner in self.winners.items()
            if problems[name].answer is not None
        ]
        return metrics | ({"majority_accuracy": mean(right)} if right else {})
