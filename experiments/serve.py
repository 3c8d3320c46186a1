"""Serve a model over HTTP, with the interface of OpenAI.

    python -m experiments.serve --preset=runs/cpu/preset

Clients ask `http://127.0.0.1:8000/v1`: completions, chats, log-probabilities, text as
it comes. SIGTERM and Ctrl-C answer what has been accepted, and end. Needs the extra
`serve`.
"""

import importlib.util

from absl import app

from experiments.command_line import define_flags, from_flags, run_main, say_hello
from experiments.common import ModelSettings, load_libraries
from star_keras.config import OptimizerConfig, SamplingConfig, ServingConfig

SETTINGS = (ServingConfig, ModelSettings, SamplingConfig, OptimizerConfig)
define_flags(ServingConfig, ModelSettings)
define_flags(SamplingConfig, only=("chat",))
define_flags(OptimizerConfig, only=("lora_rank",))


def main(argv):
    serving, model, sampling, optimizer = from_flags(argv, *SETTINGS)
    if optimizer.lora_rank is not None and serving.run_dir is None:
        raise app.UsageError("--lora_rank is that of a run: it needs --run_dir.")
    for package in ("prometheus_client", "starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f'{package} is missing: pip install "star-keras[serve]".')
    say_hello(f"server of {model.preset}")
    load_libraries()
    from star_keras.outer_loop.prompts import find_chat_template
    from star_keras.serving import Service, serve
    from star_keras.training import compile_model

    causal_lm = model.load()
    if optimizer.lora_rank is not None:
        compile_model(causal_lm, optimizer)
    chat = find_chat_template(causal_lm.preprocessor, sampling.chat)
    name = model.preset.rstrip("/").rpartition("/")[2]
    service = Service(causal_lm, serving, name=name, chat=chat)
    serve(service)


if __name__ == "__main__":
    run_main(main)
