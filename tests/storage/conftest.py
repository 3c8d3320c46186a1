"""A run directory of two iterations, made without a model."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from star_keras.config import RunConfig, StarConfig
from star_keras.storage.records import GradedSample, Selection
from star_keras.storage.run_directory import RunDirectory

CONFIG = dataclasses.asdict(StarConfig(run=RunConfig(seed=1, keep_weights=1)))
PROBLEMS = ("a", "b", "ö")


def make_sample(iteration, kind, problem, **kwargs):
    right = problem == "a" or kind == "rationalization"
    fields = {
        "iteration": iteration,
        "problem": problem,
        "problem_class": "c",
        "sample": 0,
        "kind": kind,
        "completion": f"1 + {iteration}.\nThe answer is 2.",
        "num_tokens": 9,
        "finish_reason": "stop",
        "answer": "2",
        "verdict": "correct" if right else "incorrect",
    }
    return GradedSample(**{**fields, **kwargs})


def make_selection(sample):
    right = sample.verdict == "correct"
    return Selection(
        iteration=sample.iteration,
        kind=sample.kind,
        problem=sample.problem,
        sample=sample.sample,
        weight=float(right),
        reason="" if right else sample.verdict,
    )


def variables():
    return [keras.Variable(np.arange(6.0).reshape(2, 3)), keras.Variable(1)]


def make_run(path, iterations=2, checkpoints=True):
    """A closed `RunDirectory` after its iterations, in the middle of the next one."""
    run = RunDirectory(path)
    run.open(CONFIG)
    store, saved = run.samples, variables() if checkpoints else []

    def sampled(iteration, phase, kind, problems):
        samples = [make_sample(iteration, kind, problem) for problem in problems]
        store.finish(iteration, kind, samples)
        run.finish(iteration, phase, {f"{phase}_accuracy": 1 / 3})
        return samples

    sampled(0, "evaluate", "evaluation", ["x", "y"])
    for iteration in range(1, iterations + 1):
        run.finish(iteration, "begin", {})
        samples = sampled(iteration, "sample", "rationale", PROBLEMS)
        samples += sampled(iteration, "rationalize", "rationalization", PROBLEMS[1:])
        store.finish_selection(iteration, list(map(make_selection, samples)))
        store.finish_pairs(
            iteration, "mastery", {problem: [1, 1] for problem in PROBLEMS}
        )
        run.finish(iteration, "select", {"num_rationales": 3})
        run.finish(iteration, "pack", {"steps": 4})
        if checkpoints:
            run.checkpoints.save_weights(iteration, saved)
        run.finish(iteration, "train", {"loss": 0.5})
        if checkpoints:
            run.checkpoints.prune_weights(iteration, 1)
        sampled(iteration, "evaluate", "evaluation", ["x", "y"])
    iteration = iterations + 1
    run.finish(iteration, "begin", {})
    store.append(iteration, "rationale", [make_sample(iteration, "rationale", "b")])
    if checkpoints:
        run.checkpoints.save_training(iteration, 2, saved)
        run.checkpoints.training.wait()
    run.close()
    return run


def everything(run):
    """What a run reads of its directory, or the first error."""
    run.open(CONFIG)
    try:
        run.samples.finished.check()
        found = {"history": run.history, "trained": run.trained}
        for iteration, name in run.samples.finished.recorded:
            key = f"{iteration} {name}"
            if name == "selection.jsonl":
                found[key] = run.samples.load_selection(iteration)
                found[f"{iteration} kept"] = list(run.samples.load_kept(iteration))
            elif name == "mastery.json":
                found[key] = run.samples.load_pairs(iteration, "mastery")
            else:
                kind = name.removesuffix(".jsonl")
                found[key] = list(run.samples.load(iteration, kind))
        for kind in ("rationale", "rationalization", "direct", "evaluation"):
            for iteration in range(4):
                journal = run.samples.load_journal(iteration, kind)
                found[f"{iteration} {kind} so far"] = list(journal)
        return found
    finally:
        run.close()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("whole") / "run")


def edit(path, number, **values):
    """Change fields of a line of a JSON-lines file."""
    lines = path.read_text().splitlines()
    lines[number] = json.dumps({**json.loads(lines[number]), **values})
    path.write_text("".join(line + "\n" for line in lines))
