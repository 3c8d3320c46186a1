"""Runs with completions of a script, made without a model, and pages in Chromium."""

import pathlib
import shutil

import pytest

from star_keras.config import SelectionConfig
from star_keras.outer_loop.problem_texts import write_problem_texts
from star_keras.outer_loop.prompts import PromptBuilder
from star_keras.outer_loop.selection import select
from star_keras.storage.records import GradedSample
from star_keras.storage.run_directory import RunDirectory
from star_keras.tasks.grading import grade
from star_keras.testing import Doubling
from tests.storage.conftest import CONFIG

TASK = Doubling(train=8, held_out=4)
_METRICS = {
    "rationale": "train",
    "rationalization": "rationalization",
    "evaluation": "eval",
}


def half_right(iteration, kind, number):
    """What a model answers; it learns 2 and 101, and forgets 100."""
    right = number % 2 == 1
    if kind == "rationalization":
        right = number % 4 == 2
    elif iteration == 2:
        right = number % 2 == 1 or number == 2
    if kind == "evaluation":
        right = {100: iteration == 1, 101: iteration > 0}.get(number, False)
    answer = 2 * number if right else 7
    return f" {number} + {number} = {answer}. The answer is {answer}."


def make_report_run(path, script=half_right, iterations=2, texts=True, **config):
    """The path of a finished run with the completions of a script.

    Args:
        path: Where it goes.
        script: Callable `(iteration, kind, number) -> completion`.
        iterations: Number of iterations.
        texts: Whether the texts of the problems are there.
        **config: Groups of its configuration.
    """
    run = RunDirectory(path)
    run.open({**CONFIG, **config})
    problems = {split: TASK.problems(split) for split in ("train", "eval")}

    def sampled(iteration, phase, kind, group, metrics=None):
        samples = []
        for problem in group:
            completion = script(
                iteration, kind, int(problem.id.removeprefix("double-"))
            )
            judged = grade(TASK, problem, completion)
            samples.append(
                GradedSample(
                    iteration=iteration,
                    problem=problem.id,
                    problem_class=problem.problem_class,
                    sample=0,
                    kind=kind,
                    completion=completion,
                    num_tokens=10,
                    finish_reason="stop",
                    **judged._asdict(),
                )
            )
        run.samples.finish(iteration, kind, samples)
        share = sum(s.verdict == "correct" for s in samples) / max(len(samples), 1)
        name = f"{_METRICS[kind]}_accuracy"
        classes = {f"{name}/odd": share / 2, f"{name}/even": share}
        run.finish(iteration, phase, {name: share, **classes, **(metrics or {})})
        return samples

    evaluated = {
        "eval_seconds": 2.0,
        "eval_accuracy_low": 0.1,
        "eval_accuracy_high": 0.9,
    }
    sampled(0, "evaluate", "evaluation", problems["eval"], evaluated)
    for iteration in range(1, iterations + 1):
        run.finish(iteration, "begin", {})
        plain = sampled(iteration, "sample", "rationale", problems["train"])
        wrong = {s.problem for s in plain if s.verdict != "correct"}
        failed = [p for p in problems["train"] if p.id in wrong]
        hinted = sampled(iteration, "rationalize", "rationalization", failed)
        decisions = select(TASK, (plain, hinted), SelectionConfig(), seed=0)
        run.samples.finish_selection(iteration, decisions)
        kept = {"num_rationales": 5, "share_kept": 0.5, "share_rationalized": 0.25}
        run.finish(iteration, "select", {**kept, "not_kept/incorrect": 6})
        run.finish(iteration, "pack", {"num_examples": 5, "sampling_seconds": 60.0})
        run.finish(iteration, "train", {"loss": 0.5, "training_seconds": 8.0})
        sampled(iteration, "evaluate", "evaluation", problems["eval"], evaluated)
    run.close()
    if texts:
        write_problem_texts(run.path, problems, PromptBuilder(TASK), hinted=True)
    return pathlib.Path(path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return make_report_run(tmp_path_factory.mktemp("report") / "first")


# === In a browser ===


@pytest.fixture(scope="session")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as session:
        # Chromium has no sandbox for root, as in a container.
        browser = session.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium):
    """A function that opens a report; its errors and requests fail the test."""
    contexts, problems = [], []

    def open_report(path, fragment="", **options):
        context = chromium.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "blob:"))
                or problems.append(request.url)
            ),
        )
        page.goto(f"file://{path}{fragment}")
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert problems == []
