"""The evaluation of a model: accuracy, pass@k and maj@k over problems."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence

from etils import epath

from star_keras.distribution import processes
from star_keras.outer_loop.attempts import attempt
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.statistics import (
    accuracy_by_class,
    confidence_interval,
    maj_at_k,
    mean,
    pass_at_k,
)
from star_keras.sampling.sampler import Sampler
from star_keras.storage.records import GradedSample
from star_keras.storage.sample_store import SampleStore
from star_keras.tasks.grading import answer_part, fault_of
from star_keras.tasks.task import Problem, Task
from star_keras.tasks.task_calls import call_task
from star_keras.utils import files
from star_keras.utils.errors import invalid
from star_keras.utils.json_lines import write_json_lines


def evaluate(
    prompts: PromptBuilder,
    problems: Sequence[Problem],
    sampler: Sampler,
    *,
    num_samples: int = 1,
    iteration: int = 0,
    store: SampleStore | None = None,
    on_batch: Callable[[Sequence[GradedSample], int, int], None] | None = None,
) -> tuple[dict[str, float], Sequence[GradedSample]]:
    """Sample completions of held-out problems and grade them by their answers.

    Args:
        prompts: Makes the prompts; its task grades.
        problems: The held-out problems.
        sampler: Samples the completions, with its own temperature. Greedy samples
            of a problem are all the same.
        num_samples: Completions a problem.
        iteration: Iteration of the model, for records and seeds.
        store: See `star_keras.outer_loop.attempts.attempt`.
        on_batch: See `attempt`.

    Returns:
        The metrics of `summarize`, and all samples in canonical order.

    Raises:
        ValueError: if a problem has no answer; see `attempt`.

    Example:
    ```python
    sampler = get_sampler(model, max_new_tokens=16)
    metrics, samples = evaluate(PromptBuilder(task), task.problems("eval"), sampler)
    metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"]
    ```
    """
    for problem in problems:
        if problem.answer is None:
            rule = f"problems with an answer, which {problem.id!r} has not"
            raise invalid("problems", rule, problem, "Add it, or leave it out.")
    samples = attempt(
        prompts,
        problems,
        sampler,
        kind="evaluation",
        num_samples=num_samples,
        iteration=iteration,
        store=store,
        on_batch=on_batch,
    )
    return summarize(prompts, problems, samples), samples


def summarize(
    prompts: PromptBuilder,
    problems: Sequence[Problem],
    samples: Sequence[GradedSample],
) -> dict[str, float]:
    """Metrics of an evaluation; all but the last two are shares from 0 to 1.

    Args:
        prompts: Made the prompts.
        problems: The evaluated problems.
        samples: Their samples, the same number for each problem.

    Returns:
        - `accuracy` and `accuracy/<class>`: exact match, over all samples.
        - `accuracy_low`, `accuracy_high`: 95% interval of `accuracy`, over the
          problems.
        - `accuracy_flexible`: with `Task.extract_answer_flexible`, for tasks
          that have it.
        - `unparsed`, `truncated`: completions without a readable answer;
          completions cut off before their stop.
        - with `k > 1` samples a problem, `pass@1` to `pass@k` (unbiased), and
          `maj@1` to `maj@k`, exact match of the majority vote, see `maj_at_k`. Votes
          are texts: a `checker` that takes two texts for equal judges the winner alone.
        - `num_problems` and `num_samples` (a problem).
    """
    metrics = accuracy_metrics(prompts, problems, samples)
    low, high = confidence_interval(metrics["accuracy"], len(problems))
    metrics |= {"accuracy_low": low, "accuracy_high": high}
    metrics |= unread_shares(samples)
    num_samples = len(samples) // max(len(problems), 1)
    if num_samples > 1:
        metrics |= _several_samples(prompts.task, problems, samples, num_samples)
    return metrics | {"num_problems": len(problems), "num_samples": num_samples}


def accuracy_metrics(
    prompts: PromptBuilder,
    problems: Sequence[Problem],
    samples: Sequence[GradedSample],
    prefix: str = "",
) -> dict[str, float]:
    """`accuracy`, `accuracy/<class>` and `accuracy_flexible` of `summarize`.

    Problems without an answer do not count; without any other the result is empty.

    Args:
        prompts: Made the prompts.
        problems: The problems of the samples, or more: each class has a
            metric, NaN without a sample.
        samples: The samples.
        prefix: Beginning of the names, e.g. `"train_"`.
    """
    by_id = {problem.id: problem for problem in problems if problem.answer is not None}
    if problems and not by_id:
        return {}
    metrics = accuracy_by_class(
        ((s.problem_class, s.verdict) for s in samples if s.problem in by_id),
        f"{prefix}accuracy",
        classes={problem.problem_class for problem in by_id.values()},
    )
    task = prompts.task
    if type(task).extract_answer_flexible is not Task.extract_answer_flexible:
        correct = []
        for sample in (s for s in samples if s.problem in by_id):
            part = answer_part(sample.completion, prompts.opens_thoughts)
            problem, answer = by_id[sample.problem], None
            if part is not None:
                answer = call_task(task, "extract_answer_flexible", problem.id, part)
            correct.append(answer is not None and not fault_of(task, answer, problem))
        metrics[f"{prefix}accuracy_flexible"] = mean(correct)
    return metrics


def unread_shares(samples: Iterable[GradedSample]) -> dict[str, float]:
    """`unparsed` and `truncated` of `summarize`; NaN without any sample."""
    unparsed, truncated = [], []
    for sample in samples:
        unparsed.append(sample.verdict == "unparsed")
        truncated.append(sample.finish_reason == "length")
    return {"unparsed": mean(unparsed), "truncated": mean(truncated)}


def _several_samples(task, problems, samples, num_samples):
    by_id = {problem.id: problem for problem in problems}
    groups: dict[str, list[GradedSample]] = {problem.id: [] for problem in problems}
    for sample in samples:
        groups[sample.problem].append(sample)
    counts = [sum(s.verdict == "correct" for s in group) for group in groups.values()]
    metrics = {
        f"pass@{k}": mean([pass_at_k(num_samples, count, k) for count in counts])
        for k in range(1, num_samples + 1)
    }
    majorities = {f"maj@{k}": [] for k in range(1, num_samples + 1)}
    for name, group in groups.items():
        is_right = functools.cache(
            lambda answer, problem=by_id[name]: not fault_of(task, answer, problem)
        )
        answers = [sample.answer for sample in group]
        for k, shares in enumerate(majorities.values(), start=1):
            shares.append(maj_at_k(answers, k, is_right))
    return metrics | {key: mean(shares) for key, shares in majorities.items()}


def save_evaluation(directory, metrics: dict, samples: Sequence[GradedSample]):
    """Write `metrics.json` and `completions.jsonl` in the writing process.

    Args:
        directory: Local or `gs://` directory; made if needed.
        metrics: Metrics of `evaluate`.
        samples: Samples of `evaluate`.

    Raises:
        OSError: if a file cannot be written; names it.
    """
    if not processes.is_writer():
        return
    directory = epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps(metrics, indent=2) + "\n"
    files.write(directory / "metrics.json", text.encode("utf-8"))
    write_json_lines(directory / "completions.jsonl", map(dataclasses.asdict, samples))


def example_sample(store: SampleStore, iteration: int) -> GradedSample | None:
    """The sample in an iteration of one held-out problem, to compare iterations.

    It is the first problem that the base model failed, or else the first.

    Args:
        store: Holds the evaluations.
        iteration: The iteration; 0 is the base model.

    Returns:
        The sample; `None` if base model or iteration were not evaluated.
    """
    base = store.load(0, "evaluation") or []
    if not base:
        return None
    failed = (sample for sample in base if sample.verdict != "correct")
    problem = next(failed, base[0]).problem
    for sample in store.load(iteration, "evaluation") or []:
        if sample.problem == problem:
            return sample
    return None
