"""Flags and parts that the scripts share: task, model, sampler."""

import os
from pathlib import Path

import jax
import keras
from absl import app, flags, logging
from etils import epath

from star_keras import distribution, tasks
from star_keras.models import load_causal_lm
from star_keras.sampling import get_sampler

PRESETS_DIR = Path(__file__).parent / "presets"

FLAGS = flags.FLAGS

flags.DEFINE_integer("seed", 0, "Seed of draws, orders and samples.")

# === Task ===
flags.DEFINE_string("task", "arithmetic", f"One of {', '.join(sorted(tasks.TASKS))}.")
flags.DEFINE_string(
    "data_dir", None, "commonsense_qa, gsm8k: directory of the official files."
)
flags.DEFINE_string("train_path", None, "JSON lines to train on. Not for arithmetic.")
flags.DEFINE_string("eval_path", None, "JSON lines held out. Not for arithmetic.")
flags.DEFINE_string("prompts_file", None, "JSON lines of worked examples to show.")
flags.DEFINE_integer(
    "validation_problems", 500, "gsm8k: training problems held out as `eval`."
)
flags.DEFINE_list("digits", ["1", "2", "3", "4", "5"], "arithmetic: lengths.")
flags.DEFINE_integer("train_problems", 10_000, "arithmetic: problems a length.")
flags.DEFINE_integer("eval_problems", 200, "arithmetic: held-out problems a length.")
flags.DEFINE_integer("examples_per_length", 2, "arithmetic: in the few-shot prompt.")

# === Model ===
flags.DEFINE_string(
    "preset", "arithmetic_base", "Base model: a name in experiments/presets, or a path."
)
flags.DEFINE_string("dtype", "float32", "E.g. float32, bfloat16, mixed_bfloat16.")
flags.DEFINE_string("mesh", None, 'E.g. "batch:2,model:4". Default: one device.')
flags.DEFINE_bool(
    "zero", False, "With --mesh: split weights and moments over its batch axis too."
)

flags.DEFINE_string(
    "compilation_cache_dir",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/star_keras/xla"),
    "Compiled programs are kept here from run to run. Empty: nowhere.",
)

# === Processes, for a mesh over several hosts ===
flags.DEFINE_bool("distributed", False, "Find the others, as on a TPU pod.")
flags.DEFINE_string("coordinator", None, "host:port of process 0.")
flags.DEFINE_integer("num_processes", None, "All of them.")
flags.DEFINE_integer("process_id", None, "Number of this one, from 0.")
flags.DEFINE_integer(
    "process_timeout", 60, "Seconds of silence after which a process is given up."
)

# === Sampling ===
flags.DEFINE_string(
    "sampler",
    "auto",
    "auto, continuous (GPT-J), batch, or package.module:name of your own.",
)
flags.DEFINE_integer("max_new_tokens", 256, "Longest completion, in tokens.")
flags.DEFINE_integer("sample_batch_size", 64, "Completions sampled together.")
flags.DEFINE_float("temperature", 0.0, "0 is greedy.")
flags.DEFINE_integer("top_k", None, "Sample among the k likeliest tokens.")
flags.DEFINE_float("top_p", None, "Sample among the likeliest with this probability.")


def make_task():
    """The task of the flags."""
    if FLAGS.task == "jsonl" and not (FLAGS.train_path and FLAGS.eval_path):
        raise app.UsageError("--task=jsonl needs --train_path and --eval_path.")
    files = {"train_path": FLAGS.train_path, "eval_path": FLAGS.eval_path}
    arguments = {
        "arithmetic": {
            "digits": [int(n) for n in FLAGS.digits],
            "train_problems": FLAGS.train_problems,
            "eval_problems": FLAGS.eval_problems,
            "examples_per_length": FLAGS.examples_per_length,
        },
        "commonsense_qa": {"data_dir": FLAGS.data_dir, **files},
        "gsm8k": {
            "data_dir": FLAGS.data_dir,
            "validation_problems": FLAGS.validation_problems,
            **files,
        },
        "jsonl": files,
    }
    return tasks.get(
        FLAGS.task, prompts_file=FLAGS.prompts_file, **arguments.get(FLAGS.task, {})
    )


def load_model():
    """The causal LM of `--preset`, in `--dtype`, over `--mesh`.

    Joins the other processes first, if the flags ask for it.
    """
    if not FLAGS["verbosity"].present:
        # What libraries tell of their inner life is for --verbosity=0.
        logging.set_verbosity(logging.WARNING)
    if FLAGS.compilation_cache_dir:
        path = epath.Path(FLAGS.compilation_cache_dir).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    given = (FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    given += (os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES"),)
    if FLAGS.distributed or any(value is not None for value in given):
        distribution.initialize(
            FLAGS.coordinator,
            FLAGS.num_processes,
            FLAGS.process_id,
            timeout_seconds=FLAGS.process_timeout,
        )
    if FLAGS.zero and not FLAGS.mesh:
        raise app.UsageError("--zero needs a --mesh.")
    if FLAGS.mesh:
        keras.distribution.set_distribution(
            distribution.model_parallel(FLAGS.mesh, zero=FLAGS.zero)
        )
    model = load_causal_lm(preset_source(), dtype=FLAGS.dtype)
    if FLAGS.mesh:
        keras.distribution.distribution().check_layouts()
    return model


def preset_source():
    """`--preset` as `load_causal_lm` takes it."""
    preset = FLAGS.preset
    path = PRESETS_DIR / preset if (PRESETS_DIR / preset).is_dir() else Path(preset)
    if not (path / "config.json").is_file() and "://" not in preset:
        names = sorted(p.name for p in PRESETS_DIR.iterdir() if p.is_dir())
        raise ValueError(
            f"There is no preset {preset!r}. Expected one of {names}, the path of "
            "a preset or Hugging Face directory, or a handle like hf://... ."
        )
    return str(path) if path.is_dir() else preset


def make_sampler(model, *, greedy=False):
    """The sampler of the flags; with `greedy` without their temperature."""
    choices = {}
    if not greedy:
        choices = {
            "temperature": FLAGS.temperature,
            "top_k": FLAGS.top_k,
            "top_p": FLAGS.top_p,
        }
    return get_sampler(
        model,
        FLAGS.sampler,
        max_new_tokens=FLAGS.max_new_tokens,
        batch_size=FLAGS.sample_batch_size,
        seed=FLAGS.seed,
        **choices,
    )
