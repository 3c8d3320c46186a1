"""What the scripts share: settings of model and processes, and loading.

Keras and JAX are imported where they are used, so that flags are checked and the
first words appear at once.
"""

import contextlib
import dataclasses
import os
import signal

from etils import epath

from star_keras.utils.errors import invalid
from star_keras.utils.quiet import without_log_noise
from star_keras.utils.settings import Settings, groups_of, setting, settings_of


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
            ValueError: if there is no such preset, dtype, mesh or platform of
                `JAX_PLATFORMS`, the preset has no tokenizer, or a file of it is
                damaged.
            OSError: if a file is missing.
        """
        import jax
        import keras

        from star_keras import distribution
        from star_keras.models import load_causal_lm
        from star_keras.utils.devices import found_devices

        if self.compilation_cache_dir:
            path = epath.Path(self.compilation_cache_dir).expanduser()
            if not str(path).startswith("~"):  # without a home nothing is kept
                jax.config.update("jax_compilation_cache_dir", str(path))
                jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        self.choose_attention()
        found_devices()
        if self.mesh:
            keras.distribution.set_distribution(
                distribution.model_parallel(self.mesh, zero=self.zero)
            )
        check_dtype(self.dtype)
        model = load_causal_lm(self.preset, dtype=self.dtype, **kwargs)
        if model.preprocessor is None:
            remedy = "Put the tokenizer.json of the model into its directory."
            raise invalid("preset", "a model with a tokenizer", self.preset, remedy)
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
    start_timeout: int = setting(
        300, "Seconds to wait for the other processes at the start.", at_least=1
    )
    process_timeout: int = setting(
        60,
        "Seconds from the loss of a process to the end of all others, at most.",
        at_least=3,
    )

    def join(self, *settings: Settings):
        """Join the other processes, if any are named, and print the devices of all.

        Args:
            *settings: The other settings. All processes must have the same; but
                directories to write, and `data_dir`, may differ from host to host.

        Raises:
            ValueError: if a setting is not that of process 0; see
                `star_keras.distribution.initialize`; or if there are no devices of
                `JAX_PLATFORMS`.
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
                start_seconds=self.start_timeout,
            )
        devices = found_devices()
        processes.check_same(dict(_flags_of(settings)))
        if processes.is_writer():
            print(describe_devices(devices), flush=True)


def _flags_of(settings):
    """Names and values of settings, those of groups included, but no local paths."""
    for some in settings:
        yield from _flags_of(getattr(some, name) for name in groups_of(type(some)))
        for item in settings_of(type(some)):
            if not item.rule.is_path and item.name != "compilation_cache_dir":
                yield item.name, getattr(some, item.name)


def load_libraries():
    """Import Keras, JAX and TensorFlow, without the log lines of their start."""
    with _ended_by_ctrl_c(), without_log_noise():
        import keras  # noqa: F401
        import keras_hub  # noqa: F401
        import tensorflow  # noqa: F401
        from absl import flags, logging

    if not flags.FLAGS["verbosity"].present:
        # What libraries tell of their inner life is for --verbosity=0.
        logging.set_verbosity(logging.WARNING)


@contextlib.contextmanager
def _ended_by_ctrl_c():
    """A context in which Ctrl-C ends the program at once.

    As an exception it may come within a callback of JAX, which drops it.
    """
    handler = signal.getsignal(signal.SIGINT)
    is_default = handler is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_default:
            signal.signal(signal.SIGINT, handler)


def check_dtype(dtype: str):
    """Check that Keras has a dtype.

    Args:
        dtype: The value of `--dtype`.

    Raises:
        ValueError: if it has not.
    """
    import keras

    try:
        keras.dtype_policies.get(dtype)
    except ValueError:
        rule = "a dtype of Keras, e.g. float32, bfloat16 or mixed_bfloat16"
        raise invalid("dtype", rule, dtype) from None
