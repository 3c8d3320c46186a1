"""Metrics of the kept rationales that show a collapse before accuracy does."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from star_keras.outer_loop.statistics import mean
from star_keras.storage.records import GradedSample
from star_keras.storage.sample_store import SampleStore
from star_keras.storage.stored_samples import KeptSamples
from star_keras.tasks.grading import answers_at_once
from star_keras.tasks.task import Problem, Task
from star_keras.tasks.task_calls import rationale_key


def collapse_metrics(
    store: SampleStore,
    task: Task,
    problems: Mapping[str, Problem],
    own: KeptSamples,
    hinted: Iterable[GradedSample],
    iteration: int,
) -> dict[str, float]:
    """Collapse metrics of the rationales of an iteration.

    Reads the samples one at a time. Memory: about 190 bytes for each decision of the
    previous iteration during reading, then 8 bytes for each rationale.

    Args:
        store: Samples and decisions of the previous iteration.
        task: Reads answers, and tells rationales apart (`Task.rationale_key`).
        problems: The training problems by their ids.
        own: The iteration's own samples selected for training.
        hinted: The iteration's rationalizations.
        iteration: The iteration, from 1.

    Returns:
        - `rationale_tokens`: mean number of tokens of the kept rationales, with their
          answers.
        - `share_repeated`: share of the kept rationales already kept by the previous
          iteration for the same problem. NaN in iteration 1.
        - `share_hint_copied`: share of the correct rationalizations with the answer
          before any step, see `answers_at_once`.

        A metric without samples is NaN. The result is empty for training on answers
        alone.

    Raises:
        ValueError: if a file of the iteration before is missing or was changed, or
            `Task.rationale_key` returns no text.
    """
    if any(selection.kind == "direct" for selection in own.selections):
        return {}
    lengths = np.fromiter((sample.num_tokens for sample, _ in own), "int64", len(own))
    repeated = np.zeros(0, bool)
    if iteration > 1:
        before = store.load_kept(iteration - 1).where(lambda s: not s.is_wrong)
        before = _digests(task, before)
        repeated = np.isin(_digests(task, own), before)
    copied = right = 0
    for sample in hinted:
        if sample.verdict == "correct":
            right += 1
            copied += answers_at_once(task, problems[sample.problem], sample.completion)
    return {
        "rationale_tokens": float(lengths.mean()) if len(lengths) else mean([]),
        "share_repeated": float(repeated.mean()) if len(repeated) else mean([]),
        "share_hint_copied": copied / right if right else mean([]),
    }


def _digests(task, kept):
    """uint64 array: a digest of each rationale and its problem."""
    texts = (
        f"{s.problem}\0{rationale_key(task, s.problem, s.completion)}" for s, _ in kept
    )
    digests = (hashlib.blake2b(text.encode(), digest_size=8) for text in texts)
    numbers = (int.from_bytes(digest.digest()) for digest in digests)
    return np.fromiter(numbers, "uint64", len(kept))
