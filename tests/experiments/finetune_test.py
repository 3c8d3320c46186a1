import json
import re

import keras
import numpy as np
import pytest

from star_keras.callbacks import FineTuning
from star_keras.config import OptimizerConfig, TrainingConfig
from star_keras.models import load_causal_lm
from star_keras.training import StoredExamples, compile_model, tokenize_stream
from tests import forks
from tests.conftest import xla_flags

PAIRS = [(f"{n} + 1 =", f" {n + 1}") for n in range(9)]


@pytest.fixture
def flags(tmp_path):
    """Flags of a fine-tuning of seconds."""
    path = tmp_path / "pairs.jsonl"
    lines = [{"prompt": prompt, "response": response} for prompt, response in PAIRS]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [
        f"--train_path={path}",
        f"--eval_path={path}",
        f"--run_dir={tmp_path / 'run'}",
        "--batch_size=4",
        "--sequence_length=32",
        "--learning_rate=1e-2",
        "--warmup_steps=0",
        "--lora_rank=2",
    ]


def logits(model):
    ids = np.arange(12)[None]
    return np.asarray(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))


@pytest.mark.slow
def test_two_devices_and_two_parts_a_batch_train_what_one_does(
    flags, make_model, tmp_path
):
    preset = str(tmp_path / "preset")
    make_model(num_layers=1).save_to_preset(preset)
    result = forks.run(
        "experiments.finetune",
        *flags,
        f"--preset={preset}",
        "--random_weights",
        "--mesh=batch:2",
        "--gradient_accumulation_steps=2",
        "--gradient_checkpointing",
        "--steps=4",
        "--eval_steps=2",
        "--to=hugging_face",
        environment={"XLA_FLAGS": xla_flags(2)},
    )
    assert result.returncode == 0, result.stderr
    assert "9 examples" in result.stdout and "4 steps" in result.stdout

    keras.utils.set_random_seed(0)
    model = load_causal_lm(preset, load_weights=False)
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, lora_rank=2)
    compile_model(model, optimizer)
    texts = [(*pair, 1.0) for pair in PAIRS]
    examples = StoredExamples(tokenize_stream(model.preprocessor, texts))
    sizes = TrainingConfig(batch_size=4, sequence_length=32)
    arguments = {"eval_examples": examples, "training": sizes}
    one = FineTuning(
        model, examples, tmp_path / "one", steps=4, eval_steps=2, **arguments
    )
    one.fit(verbose=0)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    for line, expected in zip(
        map(json.loads, lines), one.directory.metrics, strict=True
    ):
        for name in expected.keys() & {"step", "loss", "val_loss"}:
            assert line[name] == pytest.approx(expected[name], rel=1e-4)
    saved = load_causal_lm(str(tmp_path / "run" / "hugging_face"))
    np.testing.assert_allclose(logits(saved), logits(model), atol=1e-3)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--steps=2", "--epochs=2"], "`epochs`. Expected `None` with steps=2"),
        (["--train_path="], "--train_path is needed"),
        (["--eval_path=none.txt"], "`eval_path`.*There is no file"),
    ],
)
def test_errors_have_no_traceback(flags, more, message):
    result = forks.run("experiments.finetune", *flags, *more)
    assert result.returncode != 0
    found = " ".join((result.stderr + result.stdout).split())
    assert "Traceback" not in found
    assert re.search(message, found), found[-600:]
