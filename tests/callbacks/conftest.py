"""Runs of seconds, on a scripted sampler, and what they leave."""

import functools

import numpy as np
import pytest

from star_keras.callbacks import StarIterationCallback
from star_keras.config import (
    RunConfig,
    SamplingConfig,
    SelectionConfig,
    StarConfig,
    TrainingConfig,
)
from star_keras.outer_loop import plots
from star_keras.testing import Doubling, ScriptedSampler, tiny_gpt_j
from star_keras.utils.json_lines import read_json_lines
from star_keras.utils.settings import settings_of


def half_right(request):
    """Answers every second problem right; hinted, three out of four."""
    number = int(request.name.removeprefix("double-"))
    hinted = request.seed[-1]
    right = number % 4 if hinted else number % 2
    if number == 8:
        return " Who knows?"
    answer = 2 * number if right else 7
    return f" {number} + {number}. The answer is {answer}."


def scripted(script=half_right):
    return ScriptedSampler(script)


def make_config(**kwargs):
    """A `StarConfig` of settings by their names, whatever their group."""
    arguments = {"batch_size": 2, "schedule": "steady", "sequence_length": 128}
    arguments |= kwargs
    if arguments["schedule"] == "steady":
        arguments = {"start_steps": 2, "add_steps": 1, **arguments}
    groups = {
        "sampling": SamplingConfig,
        "selection": SelectionConfig,
        "training": TrainingConfig,
        "run": RunConfig,
    }
    config = StarConfig(
        **{
            name: cls(
                **{
                    item.name: arguments.pop(item.name)
                    for item in settings_of(cls)
                    if item.name in arguments
                }
            )
            for name, cls in groups.items()
        }
    )
    assert not arguments
    return config


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Plots take a third of such a run. (See tests/outer_loop/plots_test.py.)"""
    monkeypatch.setattr(plots, "save_plots", lambda metrics, directory: None)


@pytest.fixture
def make_model(make_model):
    return functools.partial(make_model, num_layers=1, hidden_dim=16)


@pytest.fixture
def make_star(make_model, doubling, tmp_path):
    def make(
        run_dir="run", model=None, sampler=None, task=doubling, steps=None, **settings
    ):
        return StarIterationCallback(
            model or make_model(),
            task,
            tmp_path / run_dir,
            make_config(**settings),
            sampler=sampler or scripted(),
            steps=steps,
        )

    return make


@pytest.fixture(scope="module")
def uncut(tmp_path_factory):
    """Runs that were never cut, each made once: `(star, model)`."""

    @functools.cache
    def run(epochs, **settings):
        model = tiny_gpt_j(num_layers=1, hidden_dim=16)
        star = StarIterationCallback(
            model,
            Doubling(),
            tmp_path_factory.mktemp("uncut") / "run",
            make_config(**settings),
            sampler=scripted(),
        )
        fit(star, epochs)
        return star, model

    return run


def fit(star, epochs, callbacks=()):
    return star.fit(epochs, callbacks, verbose=0)


def samples(star, iteration, kind="rationale"):
    return star.run.samples.load(iteration, kind)


def all_samples(star):
    """The bytes of all files of samples."""
    root = star.run_dir / "samples"
    return {
        f"{directory.name}/{path.name}": path.read_bytes()
        for directory in root.iterdir()
        for path in directory.iterdir()
    }


def metrics(star):
    """All that `metrics.jsonl` holds, but for times."""
    timed = ("seconds", "per_second")
    return [
        {k: v for k, v in line.items() if not k.endswith(timed)}
        for line in read_json_lines(star.run_dir / "metrics.jsonl", set())
    ]


def examples(star):
    return star.training.training_set.examples


def training_prompts(star, model):
    """The prompts of what is trained on now."""
    detokenize = model.preprocessor.tokenizer.detokenize
    return [detokenize(e.prompt_ids.tolist()) for e in examples(star)]


def weights(model):
    return [np.array(v.value) for v in model.trainable_variables]


def assert_equal_weights(first, second):
    for x, y in zip(weights(first), weights(second), strict=True):
        assert np.array_equal(x, y)
