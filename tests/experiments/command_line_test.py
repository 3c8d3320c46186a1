import dataclasses
import inspect
import json
import subprocess
import sys

import pytest
from absl import app, flags

from experiments import common, task_settings
from experiments.command_line import define_flags, from_flags, print_error
from star_keras import tasks
from star_keras.config import OptimizerConfig, StarConfig
from star_keras.utils.settings import Settings, groups_of, setting, settings_of
from tests.conftest import ROOT, run_experiment

PARTS = [*groups_of(StarConfig).values(), OptimizerConfig]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw(Settings):
    """What is drawn."""

    count: int = setting(8, "A count.", at_least=1)
    share: float = setting(0.5, "A share.", above=0)
    color: str = setting("red", "A color.", choices=("red", "blue"))
    shown: bool = setting(True, "Whether.")
    names: tuple[str, ...] = setting(("a",), "Names.")
    limit: int | None = setting(None, "A limit.")


def parse(*arguments):
    values = flags.FlagValues()
    define_flags(Draw, values=values)
    rest = values(["program", *arguments])
    (draw,) = from_flags(rest, Draw, values=values)
    return draw


def test_flags_have_the_names_types_and_defaults_of_the_settings():
    assert parse() == Draw()
    assert parse(
        *("--count=3", "--share=0.25", "--color=blue", "--noshown"),
        *("--names=b,c", "--limit=4"),
    ) == Draw(count=3, share=0.25, color="blue", shown=False, names=("b", "c"), limit=4)


def test_none_takes_back_the_number_of_a_flagfile():
    assert parse("--limit=4", "--limit=none") == Draw()
    with pytest.raises(flags.Error):
        parse("--count=none")


@pytest.mark.parametrize(
    "argument", ["--count=0", "--count=x", "--limit=x", "--color=green", "--unknown=3"]
)
def test_bounds_choices_and_names_are_checked_while_parsing(argument):
    with pytest.raises(flags.Error):
        parse(argument)


@pytest.mark.parametrize(
    ("argument", "message"), [("--share=0", "`share`"), ("more", "Unexpected arg")]
)
def test_everything_else_is_an_error_of_usage(argument, message):
    with pytest.raises(app.UsageError, match=message):
        parse(argument)


def test_a_value_behind_a_no_flag_is_an_error_of_usage():
    done = run_experiment("check", "--nomend=true")
    assert done.returncode == 1
    assert done.stderr.startswith("--nomend=true does not take an argument. Leave out")
    assert "Traceback" not in done.stderr


def within_a_fault(call):
    try:
        {}["fault"]
    finally:
        call()


def with_a_note(call):
    try:
        call()
    except OSError as error:
        error.add_note("The code of a task called it.")
        raise


def raise_empty():
    raise TimeoutError


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        ("Draw(share=0)", "Invalid value for argument `share`. Expected"),
        ("open('/none')", "[Errno 2] No such file or directory: '/none'"),
        ("__import__('none')", "No module named 'none'"),
        ("int('x')", "Traceback"),  # no `raise` of star-keras, but one of Python
        ("json.loads('x')", "Traceback"),
        ("setting(0).unknown", "Traceback"),
        ("__import__('star_keras.none')", "Traceback"),
        ("within_a_fault(lambda: open('/none'))", "Traceback"),
        ("with_a_note(lambda: open('/none'))", "Traceback"),
        ("raise_empty()", "Traceback"),
    ],
)
def test_what_is_no_fault_of_the_program_is_printed_alone(call, printed, capsys):
    with pytest.raises(Exception) as caught:
        # In a module of star-keras.
        eval(call, {**globals(), "__name__": "star_keras.program"})
    print_error(caught.type, caught.value, caught.tb)
    found = capsys.readouterr().err
    assert found.startswith(printed)
    assert ("Traceback" in found) == (printed == "Traceback")


@pytest.mark.parametrize("script", ["star", "direct", "plan"])
def test_every_flag_of_the_configuration_has_the_default_of_the_api(script):
    """In a process of its own, since scripts define the same flags."""
    program = (
        "import json, sys\n"
        "from absl import flags\n"
        "from experiments import command_line\n"
        f"import experiments.{script}\n"
        "flags.FLAGS(['program'])\n"
        "print(json.dumps({n: flags.FLAGS[n].value for n in flags.FLAGS}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    for part in PARTS:
        for item in settings_of(part):
            default = getattr(part(), item.name)
            if script == "direct" and item.name in ("direct", "few_shot"):
                default = not default  # what makes it this baseline
            assert values[item.name] == default, item.name


def test_flags_of_the_tasks_have_the_defaults_of_the_tasks():
    settings = task_settings.TaskSettings()
    checked = set()
    for task in tasks.TASKS.values():
        for name, parameter in inspect.signature(task).parameters.items():
            if not hasattr(settings, name):
                continue
            value, default = getattr(settings, name), parameter.default
            if default is inspect.Parameter.empty:
                default = None
            if name in ("digits", "steps"):
                value = tuple(map(int, value))
                default = tuple(default)
            assert value == default, (task.name, name)
            checked.add(name)
    assert checked == {
        *(
            "data_dir",
            "train_path",
            "eval_path",
            "validation_problems",
            "digits",
            "steps",
            "class_by",
            "largest_number",
        ),
        *("train_problems", "eval_problems", "examples_per_length"),
    }


def test_flags_of_processes_have_the_defaults_of_initialize():
    from star_keras.distribution import initialize

    parameters = inspect.signature(initialize).parameters
    settings = common.ProcessSettings()
    assert settings.process_timeout == parameters["timeout_seconds"].default
    assert settings.start_timeout == parameters["start_seconds"].default
    for name in ("coordinator", "num_processes", "process_id"):
        assert getattr(settings, name) is parameters[name].default is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "gsm8k", "digits": ("1",)}, "`digits`.*with task='gsm8k'"),
        ({"train_path": "x"}, "`train_path`.*with task='arithmetic'"),
        ({"digits": ("1", "two")}, "`digits`. Expected numbers"),
        (
            {"task": "gsm8k", "eval_path": "x", "validation_problems": 20},
            "`validation_problems`. Expected 500 with --eval_path.*=20. Leave",
        ),
        ({"task": "jsonl"}, "needs --train_path and --eval_path"),
    ],
)
def test_flags_that_the_task_does_not_have_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        task_settings.TaskSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "gsm8k", "data_dir": "/none"}, "/none"),
        ({"task": "gsm8k", "train_path": "/none.jsonl"}, "/none.jsonl"),
        ({"task": "jsonl", "train_path": "/a", "eval_path": "/b"}, "/a"),
        ({"prompts_file": "/none.jsonl"}, "/none.jsonl"),
    ],
)
def test_an_error_of_a_task_names_the_file(settings, message):
    with pytest.raises((ValueError, OSError), match=message):
        task_settings.TaskSettings(**settings).make()


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="`preset`. Expected.*Received.*'gpt_5'"):
        common.ModelSettings(preset="gpt_5", compilation_cache_dir="").load()


def test_a_dtype_that_keras_does_not_have_is_named():
    with pytest.raises(ValueError, match="`dtype`. Expected a dtype of Keras.*'f99'"):
        common.ModelSettings(dtype="f99", compilation_cache_dir="").load()


def test_noflash_attention_reaches_keras():
    import keras

    common.ModelSettings(flash_attention=False).choose_attention()
    try:
        assert keras.config.is_flash_attention_enabled() is False
    finally:
        keras.config.enable_flash_attention()


def test_a_wrong_flag_is_told_before_anything_heavy_is_imported():
    command = [
        "-X",
        "importtime",
        "-m",
        "experiments.star",
        "--run_dir=x",
        "--batch_size=0",
    ]
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "--batch_size=0" in done.stdout + done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "star_keras.config" in imported
    assert not imported & {"keras", "keras_hub", "tensorflow", "orbax"}
