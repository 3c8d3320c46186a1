"""What the scripts share: settings of task, model and processes, and loading.

Keras and JAX are imported where they are used, so that flags are checked and the
first words appear at once.
"""

import contextlib
import dataclasses
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from star_keras import tasks
from star_keras.utils.errors import invalid
from star_keras.utils.quiet import without_log_noise
from star_keras.utils.settings import Settings, setting

# Settings that are lists of numbers.
_NUMBERS = {"digits", "steps"}
_FIELDS = ("question_field", "answer_field", "choices_field", "class_field")


@contextlib.contextmanager
def message_alone():
    """A context in which an error of the user's input ends the program.

    Raises:
        SystemExit: of code 1 with the message of a `ValueError`, `OSError` or
            `ImportError`, which names file, argument or library and the remedy; a
            traceback would hide it.
    """
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(str(error)) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSettings(Settings):
    """The task and its problems."""

    task: str = setting("arithmetic", "The task.", choices=tuple(sorted(tasks.TASKS)))
    data_dir: str | None = setting(
        None,
        "commonsense_qa, gsm8k: directory of the official files. Default: they are "
        "downloaded.",
        is_path=True,
    )
    train_path: str | None = setting(
        None,
        "JSON lines, CSV, Parquet, hf://OWNER/NAME:SPLIT or DIRECTORY:SPLIT to train "
        "on. Not for arithmetic and word_problems.",
    )
    eval_path: str | None = setting(
        None, "Held-out problems, from the same sources as --train_path."
    )
    question_field: str | None = setting(
        None, "Column of the question in both sources. Default: question."
    )
    answer_field: str | None = setting(None, "Column of the answer. Default: answer.")
    choices_field: str | None = setting(
        None,
        "Column of the choices, for commonsense_qa and multiple_choice. Default: "
        "choices.",
    )
    class_field: str | None = setting(None, "Column of the class. Default: class.")
    prompts_file: str | None = setting(
        None,
        "JSON lines of a prompt format and worked examples in place of the task's own.",
        is_path=True,
    )
    checker: str | None = setting(
        None,
        "Comparison of answers: exact, numeric, math, choice, set, or "
        "package.module:name of a callable. Default: the comparison of the task.",
    )
    class_by: str = setting(
        "level",
        "math: class of a problem, for accuracy by class.",
        choices=("level", "subject", "both"),
    )
    validation_problems: int = setting(
        500, "gsm8k: training problems held out as the split `eval`.", at_least=0
    )
    digits: tuple[str, ...] = setting(
        ("1", "2", "3", "4", "5"), "arithmetic: numbers of digits."
    )
    steps: tuple[str, ...] = setting(
        ("1", "2", "3"), "word_problems: numbers of steps."
    )
    train_problems: int = setting(
        10_000,
        "arithmetic, word_problems: training problems a length or number of steps.",
        at_least=1,
    )
    eval_problems: int = setting(
        200,
        "arithmetic, word_problems: held-out problems a length or number of steps.",
        at_least=1,
    )
    largest_number: int = setting(
        2_000, "word_problems: upper limit of numbers and results.", at_least=20
    )
    examples_per_length: int = setting(
        2, "arithmetic: worked examples a length.", at_least=0
    )

    def check(self):
        used = {"task", "prompts_file", "checker", *self._parameters()}
        used |= set(_FIELDS) if "train_path" in used else set()
        has_choices = self.task in ("commonsense_qa", "multiple_choice")
        used -= set() if has_choices else {"choices_field"}
        for name, value in dataclasses.asdict(self).items():
            default = getattr(type(self), name)
            if name not in used and value != default:
                rule = f"{default!r} with task={self.task!r}, which does not use it"
                raise invalid(name, rule, value, "Leave it out.")
        needed = inspect.signature(tasks.TASKS[self.task]).parameters.values()
        if not all(getattr(self, p.name) for p in needed if p.default is p.empty):
            raise ValueError(f"--task={self.task} needs --train_path and --eval_path.")
        for name in _NUMBERS:
            values = getattr(self, name)
            if not all(value.isdecimal() for value in values):
                raise invalid(name, "numbers like 1,2,3", ",".join(values))
        default = type(self).validation_problems
        if self.eval_path and self.validation_problems != default:
            rule = f"{default} with --eval_path, which gives the split `eval`"
            value = self.validation_problems
            raise invalid("validation_problems", rule, value, "Leave one of them out.")
        if self.task in ("arithmetic", "word_problems"):  # made at once
            tasks.TASKS[self.task](**self._arguments())

    def _parameters(self):
        names = inspect.signature(tasks.TASKS[self.task]).parameters
        return [name for name in names if hasattr(type(self), name)]

    def make(self) -> tasks.Task:
        """The task.

        Raises:
            SystemExit: if an argument of `star_keras.tasks.get` is invalid, or a file
                is missing or damaged.
        """
        names = (*_FIELDS, "prompts_file", "checker")
        arguments = self._arguments() | {name: getattr(self, name) for name in names}
        with message_alone():
            return tasks.get(self.task, **arguments)

    def _arguments(self):
        arguments = {name: getattr(self, name) for name in self._parameters()}
        for name in _NUMBERS & arguments.keys():
            arguments[name] = [int(value) for value in arguments[name]]
        return arguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """The base model, and the devices it is on."""

    preset: str = setting(
        "arithmetic_base",
        "Base model: the name of a preset that comes with star-keras or KerasHub, a "
        "directory, or a handle like hf://EleutherAI/gpt-j-6b.",
    )
    dtype: str = setting("float32", "E.g. float32, bfloat16 or mixed_bfloat16.")
    mesh: str | None = setting(
        None,
        'E.g. "batch:2,model:4", or "slice:2,batch:8,model:8" over two TPU slices. '
        "Default: one device.",
    )
    zero: bool = setting(
        False, "With --mesh: split weights and moments over its batch axis too."
    )
    flash_attention: bool = setting(
        True,
        "Attention of packed rows by the kernels of a TPU or GPU, where they apply. "
        "--noflash_attention: all scores in memory.",
    )
    compilation_cache_dir: str = setting(
        os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/star_keras/xla"),
        "Compiled programs are kept here from run to run. Empty: nowhere.",
    )

    def check(self):
        if self.zero and not self.mesh:
            raise ValueError("--zero needs a --mesh.")

    def choose_attention(self):
        """Tell Keras whether there are kernels of attention."""
        import keras

        if not self.flash_attention:
            keras.config.disable_flash_attention()

    def load(self, **kwargs):
        """The causal LM, not compiled, laid out over the mesh.

        Args:
            **kwargs: Further arguments of `load_causal_lm`.

        Raises:
            SystemExit: if there is no such preset, dtype, mesh or platform of
                `JAX_PLATFORMS`, or a file of the preset is missing or damaged.
        """
        import jax
        import keras
        from etils import epath

        from star_keras import distribution
        from star_keras.models import load_causal_lm
        from star_keras.utils.devices import found_devices

        if self.compilation_cache_dir:
            path = epath.Path(self.compilation_cache_dir).expanduser()
            jax.config.update("jax_compilation_cache_dir", str(path))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        self.choose_attention()
        with message_alone():
            found_devices()
            if self.mesh:
                keras.distribution.set_distribution(
                    distribution.model_parallel(self.mesh, zero=self.zero)
                )
            model = load_causal_lm(self.preset, dtype=self.dtype, **kwargs)
            if self.mesh:
                keras.distribution.distribution().check_layouts()
        return model


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessSettings(Settings):
    """The processes of a run over several hosts."""

    distributed: bool = setting(
        False, "Find the other processes, as on a TPU pod or under Slurm."
    )
    coordinator: str | None = setting(None, "host:port of process 0.")
    num_processes: int | None = setting(None, "Number of processes.", at_least=1)
    process_id: int | None = setting(
        None, "Number of this process, from 0.", at_least=0
    )
    process_timeout: int = setting(
        60, "Seconds of silence after which a process is given up.", at_least=1
    )

    def join(self):
        """Join the other processes, if any are named, and print the devices of all.

        Raises:
            ValueError, RuntimeError: see `star_keras.distribution.initialize`.
            SystemExit: if there are no devices of `JAX_PLATFORMS`.
        """
        from star_keras.distribution import processes
        from star_keras.utils.devices import describe_devices, found_devices

        given = (self.coordinator, self.num_processes, self.process_id)
        given += (os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES"),)
        if self.distributed or any(value is not None for value in given):
            from star_keras import distribution

            distribution.initialize(
                self.coordinator,
                self.num_processes,
                self.process_id,
                timeout_seconds=self.process_timeout,
            )
        with message_alone():
            devices = found_devices()
        if processes.is_writer():
            print(describe_devices(devices), flush=True)


def load_libraries():
    """Import Keras, JAX and TensorFlow, without the log lines of their start."""
    with without_log_noise():
        import keras  # noqa: F401
        import keras_hub  # noqa: F401
        import tensorflow  # noqa: F401
        from absl import flags, logging

    if not flags.FLAGS["verbosity"].present:
        # What libraries tell of their inner life is for --verbosity=0.
        logging.set_verbosity(logging.WARNING)


def save_directory(save: Callable[[str], None], path):
    """Write a directory, whole or not at all.

    Args:
        save: Writes into a local directory.
        path: Local or `gs://` path, an `etils.epath.Path`. What is there is replaced.
    """
    from etils import epath

    partial = path.with_name(path.name + ".partial")
    if partial.exists():
        partial.rmtree()
    # KerasHub saves to local directories alone.
    with tempfile.TemporaryDirectory() as directory:
        save(directory)
        for file in sorted(Path(directory).rglob("*.*")):
            target = partial / str(file.relative_to(directory))
            target.parent.mkdir(parents=True, exist_ok=True)
            epath.Path(file).copy(target)
    if path.exists():
        path.rmtree()
    partial.rename(path)
