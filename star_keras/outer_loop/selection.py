"""Which samples are trained on, and with which weight."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from star_keras.config import SelectionConfig
from star_keras.outer_loop.pairs import Pairs
from star_keras.outer_loop.problems import draw_stream
from star_keras.outer_loop.quotas import Quota, sample_fault
from star_keras.outer_loop.votes import Votes
from star_keras.storage.records import GradedSample, Selection
from star_keras.storage.sample_store import SampleStore
from star_keras.storage.stored_samples import KeptSamples
from star_keras.tasks.task import Task
from star_keras.tasks.task_calls import rationale_key


def select(
    task: Task,
    phases: Sequence[Iterable[GradedSample]],
    config: SelectionConfig,
    seed: int,
    quota: Quota | None = None,
    *,
    paired: bool = False,
    votes: Votes | None = None,
) -> list[Selection]:
    """Decide whether each sample of an iteration is trained on.

    Args:
        task: Tells equal rationales apart (`Task.rationale_key`).
        phases: The samples of each phase; those of earlier phases are preferred.
            Iterated over twice, with a quota the first one three times.
        config: The settings of the selection.
        seed: Decides which rationalizations show their hint.
        quota: Of a problem with a quota, no more distinct rationales are kept.
        paired: Whether to train on pairs of a right and a wrong completion, see
            `star_keras.outer_loop.pairs`.
        votes: Decide in place of the verdicts, and their agreement weighs, see
            `star_keras.outer_loop.votes`.

    Returns:
        A `Selection` for each sample, in the order of the phases.

    Raises:
        ValueError: if `Task.rationale_key` returns no text.
    """
    seen: set[tuple[str, str]] = set()
    kept: collections.Counter[str] = collections.Counter()
    quotas = {} if quota is None else quota.targets(phases[0])
    reasons, pairs = [], Pairs()

    def key_of(sample):
        return rationale_key(task, sample.problem, sample.completion)

    for sample in itertools.chain(*phases):
        reason = sample_fault(sample, config, votes)
        if not reason and (config.drop_duplicates or quotas):
            key = sample.problem, key_of(sample)
            reason = "duplicate" if key in seen else ""
            seen.add(key)
        limits = config.max_rationales_per_problem, quotas.get(sample.problem)
        if not reason and any(
            x is not None and kept[sample.problem] >= x for x in limits
        ):
            reason = "cap"
        kept[sample.problem] += not reason
        if paired:
            pairs.add(sample, reason, key_of(sample))
        reasons.append(reason)
    if paired:
        reasons, kept = pairs.reasons(reasons), pairs.counts
    return [
        Selection(
            iteration=sample.iteration,
            kind=sample.kind,
            problem=sample.problem,
            sample=sample.sample,
            weight=_weight(sample, reason, kept[sample.problem], config, votes),
            show_hint=not reason and _shows_hint(sample, config, seed),
            reason=reason,
            is_wrong=paired and not reason and sample.verdict != "correct",
        )
        for sample, reason in zip(itertools.chain(*phases), reasons, strict=True)
    ]


def reject(
    selections: Sequence[Selection], keys: set, reason: str, config: SelectionConfig
) -> Sequence[Selection]:
    """Decisions on samples, with some that are not trained on after all.

    Args:
        selections: The decisions before.
        keys: Their keys.
        reason: Why they are not trained on.
        config: With `weigh_by_problem` the others of a problem get their weight.
    """
    if not keys:
        return selections
    before = collections.Counter(s.problem for s in selections if s.weight)
    after = before - collections.Counter(key[2] for key in keys)

    def decided(selection):
        if selection.key in keys:
            changes = {"weight": 0.0, "show_hint": False, "is_wrong": False}
            changes["reason"] = reason
        elif selection.weight and config.weigh_by_problem:
            weight = selection.weight * before[selection.problem]
            changes = {"weight": min(1.0, weight / after[selection.problem])}
        else:
            return selection
        return dataclasses.replace(selection, **changes)

    return [decided(selection) for selection in selections]


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


def _weight(sample, reason, num_kept, config, votes):
    if reason:
        return 0.0
    weight = 1 / num_kept if config.weigh_by_problem else 1.0
    return weight if votes is None else weight * votes.agreement[sample.problem]


def _shows_hint(sample, config, seed):
    if sample.kind != "rationalization" or not config.p_show_hint_save:
        return False
    draw = draw_stream(seed, sample.iteration, sample.problem)
    return draw.random() < config.p_show_hint_save
