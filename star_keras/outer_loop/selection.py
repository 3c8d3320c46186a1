"""Which samples are trained on, and with which weight."""

import collections
import itertools
from collections.abc import Iterable, Sequence

from star_keras.config import SelectionConfig
from star_keras.outer_loop.problems import draw_stream
from star_keras.outer_loop.records import GradedSample, Selection
from star_keras.outer_loop.sample_store import SampleStore
from star_keras.outer_loop.stored_samples import KeptSamples
from star_keras.tasks.equations import equation_fault
from star_keras.tasks.task import Task


def select(
    task: Task,
    phases: Sequence[Iterable[GradedSample]],
    config: SelectionConfig,
    seed: int,
) -> list[Selection]:
    """Decide whether each sample of an iteration is trained on.

    Args:
        task: Tells equal rationales apart (`Task.rationale_key`).
        phases: The samples of each phase; those of earlier phases are preferred.
            Iterated over twice.
        config: The settings of the selection.
        seed: Decides which rationalizations show their hint.

    Returns:
        A `Selection` for each sample, in the order of the phases.
    """
    seen: set[tuple[str, str]] = set()
    kept: collections.Counter[str] = collections.Counter()
    reasons = []
    for sample in itertools.chain(*phases):
        reason = "" if sample.verdict == "correct" else sample.verdict
        if not reason and config.check_equations and sample.kind != "direct":
            reason = equation_fault(sample.completion, sample.answer)
        if not reason and config.drop_duplicates:
            key = sample.problem, task.rationale_key(sample.completion)
            reason = "duplicate" if key in seen else ""
            seen.add(key)
        most = config.max_rationales_per_problem
        if not reason and most is not None and kept[sample.problem] >= most:
            reason = "cap"
        kept[sample.problem] += not reason
        reasons.append(reason)
    return [
        Selection(
            iteration=sample.iteration,
            kind=sample.kind,
            problem=sample.problem,
            sample=sample.sample,
            weight=_weight(reason, kept[sample.problem], config),
            show_hint=not reason and _shows_hint(sample, config, seed),
            reason=reason,
        )
        for sample, reason in zip(itertools.chain(*phases), reasons, strict=True)
    ]


def load_copies(store: SampleStore, iteration: int, copy_n: int) -> KeptSamples:
    """What the `copy_n` iterations before this one kept of their own samples.

    Raises:
        ValueError: if a file is missing or does not fit the others.
    """
    earlier = range(max(1, iteration - copy_n), iteration)
    return sum(map(store.load_kept, earlier), KeptSamples())


def selection_metrics(
    kept: Sequence[Selection],
    selections: Sequence[Selection],
    num_problems: int,
) -> dict[str, float]:
    """Metrics of what an iteration kept.

    Args:
        kept: The decisions on what is trained on, without copies.
        selections: The decisions on the iteration's own samples.
        num_problems: Number of problems drawn for the iteration.

    Returns:
        `num_rationales`; `share_kept` and `share_rationalized`, shares of the
        problems with a kept unhinted or hinted rationale; and
        `not_kept/<reason>`, numbers of samples.
    """
    solved: dict[bool, set[str]] = {False: set(), True: set()}
    for selection in kept:
        solved[selection.kind == "rationalization"].add(selection.problem)
    reasons = collections.Counter(s.reason for s in selections if s.reason)
    return {
        "num_rationales": len(kept),
        "share_kept": len(solved[False]) / num_problems,
        "share_rationalized": len(solved[True]) / num_problems,
        **{f"not_kept/{reason}": count for reason, count in sorted(reasons.items())},
    }


def _weight(reason, num_kept, config):
    if reason:
        return 0.0
    return 1 / num_kept if config.weigh_by_problem else 1.0


def _shows_hint(sample, config, seed):
    if sample.kind != "rationalization" or not config.p_show_hint_save:
        return False
    draw = draw_stream(seed, sample.iteration, sample.problem)
    return draw.random() < config.p_show_hint_save
