import dataclasses
import itertools
import json

import pytest

from star_keras import config
from star_keras.config import (
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    StarConfig,
    TrainingConfig,
)
from star_keras.config.settings_page import reference_table
from star_keras.config.training import SCHEDULES
from star_keras.models import GPTJCausalLMPreprocessor
from star_keras.testing import Doubling, ScriptedSampler
from star_keras.testing.tiny_gpt_j import byte_tokenizer
from star_keras.utils.settings import groups_of, settings_of
from tests.callbacks.conftest import make_config
from tests.conftest import ROOT

PARTS = [*groups_of(StarConfig).values(), OptimizerConfig]


@pytest.mark.parametrize("part", PARTS)
def test_every_setting_has_help_and_is_part_of_the_resume_check(part):
    for item in settings_of(part):
        assert item.rule.help.endswith("."), item.name
        assert len(item.rule.help) > 10, item.name
        assert item.rule.on_resume in ("fixed", "free"), item.name


def test_names_are_unique_so_that_they_can_be_flags():
    names = [item.name for part in PARTS for item in settings_of(part)]
    assert len(set(names)) == len(names)


def other_value(item):
    """A valid value that is not the default."""
    if item.rule.choices:
        return item.rule.choices[1 if item.default == item.rule.choices[0] else 0]
    return {
        bool: lambda: item.default is False,
        int: lambda: (item.default or 0) + 1,
        float: lambda: 0.5,
        str: lambda: "batch",
    }[item.kind]()


class CheckedDoubling(Doubling):
    def working_fault(self, completion, problem):
        return ""


@pytest.mark.parametrize(
    "item",
    [item for part in groups_of(StarConfig).values() for item in settings_of(part)],
    ids=lambda item: item.name,
)
def test_a_resumed_run_refuses_other_values_of_fixed_settings_alone(
    item, make_model, tmp_path
):
    """Every field of every group, by what its metadata says."""
    from star_keras.outer_loop.iteration import OuterLoop
    from star_keras.outer_loop.progress import Progress
    from star_keras.storage.run_directory import RunDirectory
    from star_keras.utils.settings import free_settings

    verifier = make_model(num_layers=1) if item.name == "drop_lowest" else None

    def open_run(**settings):
        run = RunDirectory(tmp_path)
        sampler = ScriptedSampler(lambda request: "")
        loop = OuterLoop(
            CheckedDoubling(),
            GPTJCausalLMPreprocessor(byte_tokenizer()),
            run,
            make_config(**settings),
            sampler=sampler,
            eval_sampler=sampler,
            packed=True,
            verifier=verifier,
            progress=Progress(),
        )
        run.open(loop.describe(), free_settings(StarConfig))
        run.close()

    settings = {}
    if item.name in ("top_k", "top_p", "min_p"):
        settings["temperature"] = 1.0
    if item.name in ("quota", "max_samples_per_problem"):
        settings["kept_per_problem"] = 1
    if item.name == "grow_at":
        settings["first_classes"] = 1
    if item.name == "p_mastered":
        settings["mastered_after"] = 1
    for schedule, names in SCHEDULES.items():
        if item.name in names:
            settings["schedule"] = schedule
    if item.name == "drop_lowest":
        settings["drop_lowest"] = 0.25
    if item.name == "answers":
        settings |= {"samples_per_problem": 2, "rationalize": False}
    open_run(**settings)
    used = {"start_steps": 2, "batch_size": 2, "sequence_length": 128}
    used |= {"schedule": "steady", "add_steps": 1}
    item = dataclasses.replace(item, default=used.get(item.name, item.default))
    other = {**settings, item.name: other_value(item)}
    if item.rule.on_resume == "free":
        open_run(**other)
        stored = json.loads((tmp_path / "config.json").read_text())
        values = {
            k: v
            for part in stored.values()
            if isinstance(part, dict)
            for k, v in part.items()
        }
        assert values[item.name] == other[item.name]
    else:
        with pytest.raises(ValueError, match=f"{item.name}: .* there, .* here"):
            open_run(**other)


@pytest.mark.parametrize(
    ("part", "arguments"),
    [
        (SamplingConfig, {"p_rationalization": 1.5}),
        (SamplingConfig, {"n_train_samples": 0}),
        (SamplingConfig, {"temperature": -1}),
        (TrainingConfig, {"batch_size": 0}),
        (TrainingConfig, {"schedule": "linear"}),
        (RunConfig, {"keep_weights": 0}),
        (RunConfig, {"on_empty": "sulk"}),
        (OptimizerConfig, {"learning_rate": 0}),
        (OptimizerConfig, {"beta_2": 1.0}),
        (SamplingConfig, {"sampler": "contiuous"}),
    ],
)
def test_bad_values_are_named(part, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"`{name}`.*Received: {name}="):
        part(**arguments)


@pytest.mark.parametrize(
    ("part", "arguments", "name"),
    [
        (SamplingConfig, {"top_k": 3}, "top_k"),
        (SamplingConfig, {"top_p": 0.9, "temperature": 0}, "top_p"),
        (SamplingConfig, {"min_p": 0.1}, "min_p"),
        (SamplingConfig, {"quota": "difficulty"}, "quota"),
        (SamplingConfig, {"max_samples_per_problem": 8}, "max_samples_per_problem"),
        (
            SamplingConfig,
            {"kept_per_problem": 9, "max_samples_per_problem": 8},
            "max_samples_per_problem",
        ),
        (SamplingConfig, {"kept_per_problem": 1, "direct": True}, "kept_per_problem"),
        (SamplingConfig, {"order": "adaptive", "mastered_after": 1}, "mastered_after"),
        (
            SamplingConfig,
            {"sample_until_trained": True, "mastered_after": 1},
            "sample_until_trained",
        ),
        (
            SamplingConfig,
            {"sample_until_trained": True, "direct": True},
            "sample_until_trained",
        ),
        (SamplingConfig, {"p_mastered": 0.5}, "p_mastered"),
        (
            SamplingConfig,
            {"rationalize": False, "p_rationalization": 0.5},
            "p_rationalization",
        ),
        (RunConfig, {"skip_eval": True, "n_eval_samples": 3}, "n_eval_samples"),
        (OptimizerConfig, {"lr_schedule": "cosine"}, "decay_steps"),
        (OptimizerConfig, {"decay_steps": 3}, "decay_steps"),
        (OptimizerConfig, {"hold_steps": 3}, "hold_steps"),
    ],
)
def test_values_that_do_not_go_together_are_named(part, arguments, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        part(**arguments)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_takes_its_own_settings_alone(schedule):
    for name in itertools.chain(*SCHEDULES.values()):
        settings = {"schedule": schedule, name: getattr(TrainingConfig, name) + 1}
        if name in SCHEDULES[schedule]:
            TrainingConfig(**settings)
            continue
        rule = f"`{name}`. Expected .* with schedule='{schedule}', which has"
        with pytest.raises(ValueError, match=rule):
            TrainingConfig(**settings)


def test_the_table_has_the_rule_of_each_setting():
    table = reference_table(SamplingConfig)
    rule = "an integer of at least 1 | fixed | Longest completion, in tokens."
    assert f"| `max_new_tokens` | `256` | {rule} |" in table


def test_the_reference_page_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == config.reference(), "run `python -m star_keras.config`"
